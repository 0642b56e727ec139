"""Find the templates of a task that match patterns."""

from __future__ import annotations

from collections.abc import Sequence

from promptkit.data.tasks import Task
from promptkit.templating.template import BoundTemplate, load_template, match_templates


def bind_matching(task: Task, patterns: Sequence[str], *, system: str = "system") -> list[BoundTemplate]:
    """Return the templates that match, or the family's `plain`; `system` is that of `Template.bind`."""
    return [
        load_template(name).bind(task, system=system)
        for name in match_templates(patterns or ("plain",), task.templates)
    ]
