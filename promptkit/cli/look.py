"""Define the verbs that show what is there: show, lint, list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from promptkit.cli.arguments import check_shown, follow_card, is_given
from promptkit.cli.options import (
    CHAT,
    DATA,
    JSON,
    MODEL,
    ORDER,
    SEED,
    SELECTION,
    SPLIT,
    SYSTEM,
    TASK,
    TEMPLATE,
    combine,
    positive,
    shots,
)
from promptkit.cli.output import console, echo, print_json


@click.command()
@combine(TASK, MODEL, TEMPLATE, DATA)
@shots(0)
@combine(SELECTION, ORDER, SEED, SPLIT, CHAT, SYSTEM)
@positive("--limit", "Records to show.", 1)
@JSON
def show(task: str, as_json: bool, **settings: Any) -> None:
    """Show what the model will see: parts coloured, the loss mask, token counts."""
    from dataclasses import asdict

    from promptkit.cli.verbs.showing import show_prompts
    from promptkit.report.prompt_view import print_view

    check_shown(settings)
    if not is_given("split"):
        settings["split"] = None  # of one file the half that is tested on, as in score
    views = show_prompts(task, **follow_card(settings, task))
    if as_json:
        print_json({"task": task, "prompts": [asdict(view) for view in views]})
    else:
        for view in views:
            print_view(view, console())


@click.command()
@click.argument("paths", nargs=-1, type=click.Path())
@JSON
def lint(paths: Sequence[str], as_json: bool) -> None:
    """Find defects in templates and tasks, without a model: all that can be found, or those of PATHS."""
    from promptkit.linting.lint import lint as find_defects

    result = find_defects(paths)
    if as_json:
        print_json(
            {
                "tasks": result.tasks,
                "templates": result.templates,
                "pairs": result.pairs,
                "defects": [str(defect) for defect in result.defects],
            }
        )
    else:
        for defect in result.defects:
            echo(str(defect))
        checked = f"{result.templates} templates, {result.tasks} tasks, {result.pairs} pairs of both"
        echo(f"{checked}: {len(result.defects)} defects", err=True)
    if result.defects:
        raise click.exceptions.Exit(1)


@click.command("list")
@click.argument(
    "kind",
    required=False,
    type=click.Choice(["tasks", "templates", "methods", "selections", "orders", "presets", "models"]),
)
@JSON
def list_(kind: str | None, as_json: bool) -> None:
    """List tasks, templates, methods, selections, orders, presets and models that can be named."""
    from rich.text import Text

    from promptkit.cli.verbs.listing import list_names

    names = list_names(kind)
    if as_json:
        print_json(names)
        return
    for title, entries in names.items():
        if kind is None:
            console().print(Text(title, style="bold"))
        width = max(map(len, entries), default=0) + 2
        for name, description in entries.items():
            echo(f"{'' if kind else '  '}{name:<{width}}{description}".rstrip())
