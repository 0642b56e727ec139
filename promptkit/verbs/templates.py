"""Patterns into the templates of a task."""

from __future__ import annotations

from collections.abc import Sequence

from promptkit.errors import TemplateError
from promptkit.task import Task
from promptkit.template import BoundTemplate, load_template, match_templates


def bind_matching(task: Task, patterns: Sequence[str]) -> list[BoundTemplate]:
    """Return the templates that match, or the family's `plain`."""
    return [load_template(name).bind(task) for name in match_templates(patterns or ("plain",), task.templates)]


def bind_one(task: Task, patterns: Sequence[str]) -> BoundTemplate:
    """Return the only template that matches; raises TemplateError where several do."""
    bounds = bind_matching(task, patterns)
    if len(bounds) > 1:
        names = ", ".join(bound.template.name for bound in bounds)
        raise TemplateError(f"one template is needed to train on, {len(bounds)} match: {names}")
    return bounds[0]
