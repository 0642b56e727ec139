"""The verb that writes data sets: build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from promptkit.cli.options import (
    DATA,
    JSON,
    ORDER,
    SEED,
    SELECTION,
    TASK,
    TEMPLATE,
    combine,
    positive,
    shots,
)
from promptkit.cli.output import print_json, print_rows, tracking


@click.command()
@TASK
@click.option(
    "--as",
    "kind",
    type=click.Choice(["prompts", "pairs"]),
    default="prompts",
    show_default=True,
    help="In-context-learning prompts, or training pairs.",
)
@combine(TEMPLATE, DATA)
@shots(0)
@combine(SELECTION, ORDER, SEED)
@click.option("--split", help="Default: test for prompts, train for pairs.")
@positive("--limit", "Records after a seeded shuffle. Default: all.")
@positive("--train-limit", "Pool for demonstrations after a seeded shuffle. Default: all.")
@click.option("--chat/--plain", default=False, help="Add chat messages to every row.")
@click.option("--out", type=click.Path(), help="A new .jsonl or .parquet file. Default: JSONL on stdout.")
@JSON
def build(task: str, kind: str, out: str | None, as_json: bool, **settings: Any) -> None:
    """Write the data set that TASK and a template make: prompts with choices, or training pairs."""
    from promptkit.files import write_rows
    from promptkit.verbs.building import build_rows

    with tracking() as track:
        rows = build_rows(task, kind, track=track, **settings)
        if out:
            written: Any = write_rows(rows, Path(out))
        elif as_json:
            written = list(rows)
        else:
            return print_rows(rows)
    if as_json:
        return print_json({"task": task, "as": kind, "out": out, "rows": written})
    return click.echo(f"{written:,} rows written to {out}", err=True)
