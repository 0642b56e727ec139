"""Define the verb that writes data sets: build."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from promptkit.cli.arguments import check_shown
from promptkit.cli.format_options import EXPORT, take_export
from promptkit.cli.options import (
    DATA,
    JSON,
    ORDER,
    SEED,
    SELECTION,
    SYSTEM,
    combine,
    positive,
    shots,
)
from promptkit.cli.output import echo, print_json, print_rows, tracking
from promptkit.storage.parsing import parse_whole


def _read_count(_: click.Context, option: click.Parameter, given: str | None) -> int | str | None:
    """Return a number of templates as one; a name stays text."""
    with suppress(ValueError):
        return parse_whole(given or "")
    return given


_MIXING = (
    click.option(
        "--template",
        "templates",
        multiple=True,
        metavar="NAME[=WEIGHT]",
        help="A template's name or glob; may be repeated. Pairs: with a weight, one is drawn for every row.",
    ),
    click.option(
        "--per-record",
        callback=_read_count,
        help="Pairs: in how many templates a record is put, or all.",
    ),
    click.option(
        "--labels",
        multiple=True,
        metavar="NAME[=WEIGHT]",
        help="Pairs: own, WORD,WORD (for the labels in their order), swapped or random words; several are drawn from.",
    ),
    positive("--epochs", "Pairs: passes over the records, each with other draws. Default: 1."),
    click.option("--temperature", type=float, help="A mixture: above 1, small tasks get more. Default: 1."),
    positive("--cap", "A mixture: records of a task that count for its share at most."),
)
#: Options that change where rows are put, and not the rows.
_LAYOUT = ("format", "out", "push", "public", "shards", "shard_rows")
_LEAVING_OUT = (
    click.option("--balance/--natural", default=False, help="Pairs: as many records of each label, or as they are."),
    click.option(
        "--copies",
        type=click.Choice(["near", "exact", "keep"]),
        help="Pairs: leave out copies of test, validation and other training records, also those that differ in case, "
        "spaces and punctuation (near, the default).",
    ),
    positive("--hold-out", "Pairs: training records set apart; --split validation writes them."),
)


@click.command()
@click.argument("source", metavar="TASK, MIXTURE.toml or MANIFEST.json", default="reviews")
@click.option(
    "--as",
    "kind",
    type=click.Choice(["prompts", "pairs"]),
    help="In-context-learning prompts (the default for a task), or training pairs.",
)
@combine(DATA)
@shots(0)
@combine(*_MIXING, SELECTION, ORDER, SEED)
@click.option("--split", help="Default: test for prompts, train for pairs. Of one file, all of it.")
@positive("--limit", "Records after a seeded shuffle; of a mixture, in one epoch. Default: all.")
@positive("--train-limit", "Pool for demonstrations after a seeded shuffle. Default: all.")
@combine(*_LEAVING_OUT, EXPORT, SYSTEM, JSON)
def build(source: str, kind: str | None, as_json: bool, **settings: Any) -> None:
    """Write a data set: a TASK's prompts with choices or training pairs, the pairs of a MIXTURE, or a set again.

    With --out, pairs have a manifest beside them, FILE.manifest.json, that makes the same file again.
    """
    from promptkit.cli.verbs.building import build_rows, choose_kind, is_task, recall_export

    kind, given = choose_kind(source, kind), _given(settings)
    if is_task(source):
        check_shown(settings)
    export = take_export({**settings, **recall_export(source, given)}, kind, source)
    asked = {name: value for name, value in given.items() if name not in _LAYOUT}
    with tracking() as track:
        building = build_rows(source, kind, turns=export.turns, track=track, **asked)
        out = where = settings["out"]
        written: Any
        if settings["push"]:
            where, written = export.upload(
                building.rows, lambda folder: building.make_manifest(folder, export.settings)
            )
        elif out:
            written = building.write(Path(out), lambda path: export.write(building.rows, path), export.settings)
        else:
            rows = export.lay_out(building.rows)
            if as_json:
                written = list(rows)
            else:
                print_rows(rows)
    for line in building.report():  # behind the rows: an error on the way to them stays the only line
        echo(line, err=True)
    if as_json:
        summary = building.summary(export.manifest)
        print_json({"task": source, "as": kind, "out": where, "rows": written, **summary})
        return
    if where:
        place = f"shards of {where}" if Path(where).suffix and (export.shards or export.shard_rows) else where
        echo(f"{written:,} rows written to {place}", err=True)


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the options that stand on the command line: a file says the rest, or each kind has its own default."""
    context = click.get_current_context()
    default = click.core.ParameterSource.DEFAULT
    return {name: value for name, value in settings.items() if context.get_parameter_source(name) is not default}
