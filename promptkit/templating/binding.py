"""Bind templates to a task: those that patterns name, the usual ones where none is named, or exactly one."""

from __future__ import annotations

from collections.abc import Sequence

from promptkit.data.tasks import Task, load_task
from promptkit.errors import TemplateError
from promptkit.templating.template import BoundTemplate, Template, find_templates, load_template, match_templates


def bind_matching(task: Task, patterns: Sequence[str], *, system: str = "system") -> list[BoundTemplate]:
    """Return the templates that match, or the family's `plain`; `system` is that of `Template.bind`."""
    return [
        load_template(name).bind(task, system=system)
        for name in match_templates(patterns or ("plain",), task.templates)
    ]


def bind_templates(task: Task, patterns: Sequence[str] = (), *, system: str = "system") -> list[BoundTemplate]:
    """Return the templates that match, or the family's `plain` and `cot`, checked against the task.

    `system` is that of `Template.bind`.

    Raises TemplateError for a pattern that matches nothing and a template that does not fit the task.
    """
    names = match_templates(patterns, task.templates) if patterns else []
    bounds = [load_template(name).bind(task, system=system) for name in names]
    known = find_templates()
    for default, is_cot in (("plain", False), ("cot", True)):
        name = f"{task.templates}/{default}"
        if name in known and not any(bound.template.is_cot == is_cot for bound in bounds):
            bounds.append(load_template(name).bind(task, system=system))
    if not bounds:
        raise TemplateError(
            f"task {task.name!r} wants the template family {task.templates!r}, which has no `plain` template; "
            "name one with --template"
        )
    return bounds


def bind_one(task: Task | str, template: Template | str, system: str) -> tuple[Task, BoundTemplate]:
    """Return a task and its one template, which a name in the task's family or in full stands for, bound to it."""
    task = task if isinstance(task, Task) else load_task(task)
    template = template if isinstance(template, Template) else load_template(_find_one(str(template), task))
    return task, template.bind(task, system=system)


def _find_one(pattern: str, task: Task) -> str:
    """Return the name of the one template that a name, in the task's family or in full, stands for."""
    names = match_templates([pattern], task.templates)
    if len(names) > 1:
        raise TemplateError(
            f"{pattern!r} stands for {len(names)} templates, one is needed; name it: {', '.join(names)}"
        )
    return names[0]
