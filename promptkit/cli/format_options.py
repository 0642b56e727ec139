"""Define the options that choose the format and place of exported rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from promptkit.cli.options import combine, positive

if TYPE_CHECKING:
    from promptkit.cli.verbs.exporting import Export

#: Names of the formats, in the order of `promptkit.export.formats.FORMATS`.
FORMATS = ("prompt-completion", "messages", "alpaca", "sharegpt", "openai", "text")
_NAMES = ("format", "chat", "out", "push", "public", "shards", "shard_rows")

EXPORT = combine(
    click.option("--format", type=click.Choice(FORMATS), help="The form of pairs that another trainer reads."),
    click.option(
        "--chat/--plain",
        default=None,
        help="Add chat messages to every row. Default: where the format is made of them.",
    ),
    click.option(
        "--out",
        type=click.Path(),
        help="A new .jsonl or .parquet file; without an ending a folder for `datasets`. Default: JSONL on stdout.",
    ),
    positive("--shards", "Spread the rows over so many files: --out FOLDER/train.parquet names them."),
    positive("--shard-rows", "Spread them over files of so many rows."),
    click.option("--push", metavar="REPO", help="Push to the Hugging Face hub as a new split, private by default."),
    click.option("--public", is_flag=True, help="With --push: where the repository is new, everybody may read it."),
)


def take_export(settings: dict[str, Any], kind: str, source: str) -> Export:
    """Take the options of `EXPORT` out of `settings`, put `chat` in, and return how to write the rows.

    A usage error where they do not go together; RunError where something is in the way.
    """
    from promptkit.cli.verbs.exporting import Export

    given = {name: settings.pop(name) for name in _NAMES}
    split = settings.get("split") or {"pairs": "train"}.get(kind, "test")
    export = Export(kind=kind, source=source, split=split, **given)
    if message := export.misuse():
        raise click.UsageError(message)
    export.check()
    settings["chat"] = export.turns
    return export
