"""Define the verbs that make and use adapters: train, predict, merge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from promptkit.cli.arguments import for_rows
from promptkit.cli.options import (
    CHAT,
    DATA,
    DEVICE,
    JSON,
    MEMORY,
    MODEL,
    READ,
    SEED,
    SEED_FOR,
    SYSTEM,
    TEMPLATE,
    TRAINED_DTYPE,
    TRAINING,
    TRUST,
    WholeNumber,
    Words,
    combine,
    positive,
)
from promptkit.cli.output import brief, echo, print_json, print_rows, tracking
from promptkit.data.local import DataFiles

if TYPE_CHECKING:
    from promptkit.cli.verbs.predicting import PredictionsWritten


@click.command()
@click.argument("source", metavar="TASK or FILE")
@combine(MODEL, TEMPLATE, DATA, SEED, SEED_FOR, CHAT, SYSTEM, DEVICE)
@click.option(
    "--dtype",
    default="float32",
    show_default=True,
    help="float32, bfloat16, float16, nf4 (QLoRA); or auto: times float32 and bfloat16 for a second, takes the faster.",
)
@positive("--train-limit", "Training records after a seeded shuffle, or the first pairs of a file. Default: all.")
@click.option("--balance/--natural", default=False, help="As many records of each label, or as they are.")
@combine(*TRAINING)
@click.option(
    "--probes",
    type=WholeNumber(0),
    default=32,
    show_default=True,
    help="Training rows kept in the adapter's card, to be scored again; see docs/adapters.md.",
)
@click.option("--report-to", type=Words(), help="tensorboard, wandb, mlflow.")
@click.option(
    "--out",
    type=click.Path(),
    help="The adapter's folder. Default: adapters/NAME-seedN. After a kill, the same command goes on.",
)
@JSON
def train(source: str, as_json: bool, **settings: Any) -> None:
    """Train one adapter on a TASK, or on the rows of a FILE or folder, as `promptkit build --as pairs` writes it.

    A row is {"prompt": text, "completion": text}, or one of the forms in docs/exporting.md.
    """
    from promptkit.cli.verbs.training import is_first_process, train_source
    from promptkit.storage.row_folders import holds_rows

    if holds_rows(source):
        settings = for_rows(settings, "train")
    with tracking() as track:
        result = train_source(source, track=track, **settings)
    if not is_first_process():
        return
    for note in result["notes"]:
        echo(f"promptkit: {note}" if note.startswith("warning: ") else f"note: {note}", err=True)
    if as_json:
        print_json(result)
    else:
        for key in ("adapter", "task", "template", "dtype", "rows", "epochs", "losses", "validation", "seconds"):
            named = f" {result['metric']}" if key == "validation" and result[key] else ""
            echo(f"{key:<11}{brief(result[key])}{named}")
        if result["padded"]:
            echo(f"note: rows were padded, not packed, which takes longer: {result['padded']}", err=True)


@click.command()
@click.argument("file", type=click.Path())
@click.option("--adapter", required=True, type=click.Path(), help="What `promptkit train` or `merge` wrote.")
@click.option("--task", help="The task to ask with. Default: that of the training.")
@click.option("--template", help="The template to ask with. Default: that of the training.")
@click.option(
    "--out",
    type=click.Path(),
    help="A new .jsonl, .csv, .tsv or .parquet file, of whatever kind FILE is. Default: JSONL on stdout.",
)
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="At a row that cannot be labelled: stop, or leave it out, with its reason in OUT.errors.jsonl.",
)
@click.option(
    "--overlong",
    type=click.Choice(["error", "drop", "skip"]),
    default="error",
    show_default=True,
    help="A row beyond the model's window is such an error, or is left out in any case (drop, or skip).",
)
@click.option("--prefix", default="", help="What the names of the columns that are added begin with. Default: nothing.")
@click.option("--force", is_flag=True, help="Go on where the adapter answers otherwise than when it was saved.")
@combine(*READ, TRAINED_DTYPE, TRUST, DEVICE, MEMORY, JSON)
def predict(
    file: str,
    adapter: str,
    out: str | None,
    as_json: bool,
    delimiter: str | None,
    quoting: bool | None,
    labels_are: Any,
    **settings: Any,
) -> None:
    """Label the records of FILE with a trained adapter: all columns, the label, and the probability of every choice.

    FILE is JSONL, CSV, TSV or Parquet, of any size; it needs no labels. With --out, the same command goes on after a
    kill.
    """
    import orjson

    from promptkit.cli.verbs.predicted_file import write_json
    from promptkit.cli.verbs.predicting import check_records, open_labeller
    from promptkit.cli.verbs.unfinished import check_output

    out = None if out == "-" else out
    check_records(file)
    records = DataFiles(file, delimiter, quoting, labels_are)
    if out:
        check_output(Path(out))
    with tracking() as track:
        labeller = open_labeller(adapter, **settings)
        result = {"task": labeller.bound.task.name, "model": adapter}
        if out:
            _print_written(labeller.label_file(records, Path(out), track), out, result if as_json else None)
            return
        left_out: list[Any] = []
        found = labeller.label_all(records, track, left_out.append)
        if as_json:
            rows = [orjson.loads(write_json(row)) for row in found]
            print_json({**result, "rows": rows, "left_out": left_out})
            return
        print_rows(orjson.loads(write_json(row)) for row in found)
        for row in left_out:
            echo(f"left out: {row['place']}: {row['error']}", err=True)
        if left_out:
            echo(f"{len(left_out):,} rows left out", err=True)


def _print_written(written: PredictionsWritten, out: str, result: Mapping[str, Any] | None) -> None:
    """Say what was written to a file: as JSON, with what else there is in `result`, or in words where that is None."""
    errors, one = None if written.errors is None else str(written.errors), written.one_answer
    if result is not None:
        counts = {"rows": written.rows, "left_out": written.left_out, "errors": errors}
        print_json({**result, "out": out, **counts, "one_answer": one.as_dict() if one else None})
        return
    more = f"; {written.left_out:,} left out, with reasons in {errors}" if errors else ""
    echo(f"{written.rows:,} rows written to {out}{more}", err=True)
    if one:
        echo(f"note: {100 * one.share:.1f} % of the rows got one answer, {one.answer!r:.60}", err=True)


@click.command()
@click.argument("adapter", metavar="DIR", type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="The new model's folder.")
@click.option("--force", is_flag=True, help="Go on where the merged model answers otherwise than the adapter.")
@combine(TRAINED_DTYPE, TRUST, DEVICE, JSON)
def merge(adapter: str, out: str, as_json: bool, **settings: Any) -> None:
    """Add the adapter in DIR to the weights of its base model, and write a plain model folder.

    The adapter's probes, rows of its training set with their scores, are scored again with the merged weights.
    """
    from promptkit.adapters.merge import merge

    merged = merge(adapter, out, **settings)
    verdict = merged.verdict
    if as_json:
        counts = {"probes": verdict.count, "flipped": len(verdict.flips), "largest": verdict.largest} if verdict else {}
        print_json({"adapter": adapter, "out": out, "dtype": merged.dtype, **counts})
    else:
        echo(f"{out}: {merged.dtype}, {verdict or 'not compared, for the adapter has no probes'}")
