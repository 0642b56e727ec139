"""The verbs that make and use adapters: train, predict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from promptkit.cli.options import (
    CHAT,
    DATA,
    DEVICE,
    DTYPE,
    JSON,
    MEMORY,
    MODEL,
    SEED,
    TEMPLATE,
    combine,
    positive,
)
from promptkit.cli.output import brief, print_json, print_rows, tracking
from promptkit.cli.sources import for_rows, is_rows


@click.command()
@click.argument("source", metavar="TASK or FILE.jsonl")
@combine(MODEL, TEMPLATE, DATA, SEED, CHAT, DTYPE, DEVICE)
@positive("--train-limit", "Training records after a seeded shuffle. Default: all.")
@positive("--rank", "Rank of the adapter.", 8)
@positive("--epochs", "Passes over the training records.", 5)
@positive("--batch-size", "Rows per step.", 16)
@click.option("--learning-rate", type=float, help="Default: by the width of the model.")
@click.option("--out", type=click.Path(), help="The adapter's folder. Default: adapters/NAME-seedN.")
@JSON
def train(source: str, as_json: bool, **settings: Any) -> None:
    """Train one LoRA adapter on a TASK, or on the rows of a FILE.jsonl.

    A row of a file is {"prompt": text, "completion": text}, as `promptkit build --as pairs` writes it.
    """
    from promptkit.verbs.training import train_source

    if is_rows(source):
        settings = for_rows(settings, "train")
    with tracking() as track:
        result = train_source(source, track=track, **settings)
    if as_json:
        print_json(result)
    else:
        for key in ("adapter", "task", "template", "rows", "epochs", "losses", "validation", "seconds"):
            click.echo(f"{key:<11}{brief(result[key])}")


@click.command()
@click.argument("file", type=click.Path())
@click.option("--adapter", "adapter", required=True, type=click.Path(), help="The folder that `promptkit train` wrote.")
@click.option("--task", help="Where the adapter's task is found now, if not under its name.")
@click.option("--template", help="Where the adapter's template is found now, if not under its name.")
@click.option("--out", type=click.Path(), help="A new .jsonl or .parquet file. Default: JSONL on stdout.")
@combine(DTYPE, DEVICE, MEMORY, JSON)
def predict(file: str, adapter: str, out: str | None, as_json: bool, **settings: Any) -> None:
    """Label the records of FILE with a trained adapter: the label and the score of every choice."""
    from promptkit.files import write_rows
    from promptkit.verbs.predicting import predict_file

    with tracking() as track:
        task, rows = predict_file(file, adapter, track=track, **settings)
        if out:
            count = write_rows(rows, Path(out))
            if as_json:
                print_json({"task": task, "model": adapter, "out": out, "rows": count})
        elif as_json:
            print_json({"task": task, "model": adapter, "rows": list(rows)})
        else:
            print_rows(rows)
