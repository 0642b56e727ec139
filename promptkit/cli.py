"""One verb, one short function that calls the library. Results to stdout, progress and errors to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

import promptkit
from promptkit.errors import PromptkitError
from promptkit.options import (
    BATCH,
    CALIBRATE,
    CHAT,
    DATA,
    DEVICE,
    DTYPE,
    JSON,
    MEMORY,
    MODEL,
    ORDER,
    OUT_RUN,
    OVERLONG,
    SAMPLING,
    SEED,
    SELECTION,
    SPLIT,
    TASK,
    TEMPLATE,
    TRAIN_LIMIT,
    Numbers,
    Words,
    combine,
    positive,
    shots,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(promptkit.__version__, package_name="promptkit")
def cli() -> None:
    """Prompts and training pairs from one template, compared by accuracy, stability and cost."""


@cli.command()
@combine(TASK, MODEL, TEMPLATE, DATA)
@click.option(
    "--methods",
    type=Words(),
    default=(),
    help="Some of those `promptkit list methods` shows. Default: all that fit.",
)
@shots(4)
@combine(SELECTION, ORDER)
@positive("--draws", "Draws of choice and order per number of shots.", 10)
@positive("--seeds", "LoRA runs.", 3)
@positive("--limit", "Test records after a seeded shuffle.", 200)
@click.option(
    "--train-sizes", type=Numbers(), default=(), help="LoRA on so many records each, instead of k and the pool."
)
@combine(TRAIN_LIMIT, SEED, SPLIT, CHAT, DTYPE, DEVICE)
@positive("--rank", "Rank of the LoRA adapters.", 8)
@positive("--epochs", "Passes over the training records.", 5)
@click.option("--learning-rate", type=float, help="Default: by the width of the model.")
@combine(OVERLONG, BATCH, MEMORY, CALIBRATE, *SAMPLING, OUT_RUN, JSON)
def compare(
    task: str,
    model: str,
    data: str | None,
    out: str | None,
    as_json: bool,
    device: str | None,
    **settings: Any,
) -> None:
    """Put methods side by side on the same records of TASK: accuracy, stability, cost.

    TASK is a name (see `promptkit list tasks`) or a TOML file. A run that was stopped goes on when the
    same command is given again.
    """
    with _tracking() as track:
        result = promptkit.compare(task, model=model, data=data, out=out, device=device, track=track, **settings)
        result["figures"] = _figures(result)
    _print_comparison(result, as_json)


@cli.command()
@combine(TASK, MODEL, DATA)
@click.option("--preset", help="Settings of a paper, or a TOML file; see `promptkit list presets`.")
@click.option("--methods", type=Words(), help="Default: few-shot.")
@TEMPLATE
@click.option("--labels", multiple=True, help="`own`, or words for the labels, as in `zip,nop`; may be repeated.")
@click.option("--format", "formats", multiple=True, help="A number of random formats, or one as `case=upper`.")
@click.option("--demo-labels", type=Words(), help="gold, random, flipped-50, words: what demonstrations show.")
@click.option("--rationale", "rationales", type=Words(), help="valid, invalid-numbers, shuffled, irrelevant.")
@click.option("--selection", "selections", type=Words(), help="Ways to choose demonstrations, as in random,balanced.")
@shots(4)
@positive("--draws", "Choices of demonstrations.", 5)
@click.option("--orders", type=Words(), help="Sequences of each choice: how many, `all`, or names. Default: 4.")
@click.option("--train-sizes", type=Numbers(), help="LoRA on so many records each. Default: all.")
@positive("--seeds", "LoRA runs.", 3)
@positive("--epochs", "Passes over the training records.", 5)
@click.option("--models", type=Words(), help="Several models, in place of --model.")
@positive("--limit", "Test records after a seeded shuffle.", 200)
@combine(TRAIN_LIMIT, SEED, SPLIT, CHAT, DTYPE, OVERLONG, BATCH, MEMORY, CALIBRATE)
@positive("--workers", "Processes that fill the run folder together.", 1)
@click.option("--dry-run", is_flag=True, help="Say how many cells, tokens and minutes it will take, and stop.")
@combine(DEVICE, OUT_RUN, JSON)
def study(task: str, as_json: bool, **settings: Any) -> None:
    """Vary demonstrations, their number and order, templates, labels and more: what moves the answer, and how far.

    Every combination of what is given is a cell. The same command goes on where it was stopped, and further values
    of an axis compute only what is new. What is given here replaces what a preset says.
    """
    source = click.get_current_context().get_parameter_source
    given = {name: value for name, value in settings.items() if source(name) is not click.core.ParameterSource.DEFAULT}
    with _tracking() as track:
        result = promptkit.study(task, track=track, **given)
    if as_json or given.get("dry_run"):
        return _print_json(result)
    from promptkit.report.study import print_study

    return print_study(result, _console())


@cli.command()
@click.argument("source", metavar="TASK or FILE.jsonl")
@combine(MODEL, TEMPLATE, DATA)
@shots(0)
@combine(SELECTION, ORDER)
@positive("--draws", "Draws of demonstrations.", 1)
@positive("--limit", "Test records after a seeded shuffle. Default: all.")
@positive("--train-limit", "Pool for demonstrations after a seeded shuffle. Default: all.")
@combine(
    SEED,
    SPLIT,
    CHAT,
    DTYPE,
    DEVICE,
    OVERLONG,
    BATCH,
    MEMORY,
    CALIBRATE,
    *SAMPLING,
    OUT_RUN,
    JSON,
)
@click.option("--scores", is_flag=True, help="Also every item's scores: with --json as `rows`.")
def score(source: str, scores: bool, as_json: bool, **settings: Any) -> None:
    """Score conditions of a TASK, or ready-made rows of a FILE.jsonl, without training.

    A row of a file is {"prompt": text, "choices": [text, …], "label": index (optional), "id" (optional)}.
    """
    from promptkit.row_file import score_file
    from promptkit.verbs import score_task

    with _tracking() as track:
        if _is_rows(source):
            result = score_file(source, track=track, **_for_rows(settings, "score"))
        else:
            result = score_task(source, track=track, **settings)
    rows = result.pop("rows")
    if as_json:
        _print_json({**result, "rows": rows} if scores else result)
    elif scores or not result["methods"]:  # without labels the scores are all there is
        _print_rows(rows)
    else:
        _print_comparison(result, as_json=False)


@cli.command()
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
    from promptkit.verbs import train_source

    if _is_rows(source):
        settings = _for_rows(settings, "train")
    with _tracking() as track:
        result = train_source(source, track=track, **settings)
    if as_json:
        _print_json(result)
    else:
        for key in ("adapter", "task", "template", "rows", "epochs", "losses", "validation", "seconds"):
            click.echo(f"{key:<11}{_brief(result[key])}")


@cli.command()
@click.argument("file", type=click.Path())
@click.option("--adapter", "adapter", required=True, type=click.Path(), help="The folder that `promptkit train` wrote.")
@click.option("--task", help="Where the adapter's task is found now, if not under its name.")
@click.option("--template", help="Where the adapter's template is found now, if not under its name.")
@click.option("--out", type=click.Path(), help="A new .jsonl or .parquet file. Default: JSONL on stdout.")
@combine(DTYPE, DEVICE, MEMORY, JSON)
def predict(file: str, adapter: str, out: str | None, as_json: bool, **settings: Any) -> None:
    """Label the records of FILE with a trained adapter: the label and the score of every choice."""
    from promptkit.files import write_rows
    from promptkit.verbs import predict_file

    with _tracking() as track:
        task, rows = predict_file(file, adapter, track=track, **settings)
        if out:
            count = write_rows(rows, Path(out))
            if as_json:
                _print_json({"task": task, "model": adapter, "out": out, "rows": count})
        elif as_json:
            _print_json({"task": task, "model": adapter, "rows": list(rows)})
        else:
            _print_rows(rows)


@cli.command()
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
    from promptkit.verbs import build_rows

    with _tracking() as track:
        rows = build_rows(task, kind, track=track, **settings)
        if out:
            written: Any = write_rows(rows, Path(out))
        elif as_json:
            written = list(rows)
        else:
            return _print_rows(rows)
    if as_json:
        return _print_json({"task": task, "as": kind, "out": out, "rows": written})
    return click.echo(f"{written:,} rows written to {out}", err=True)


@cli.command()
@combine(TASK, MODEL, TEMPLATE, DATA)
@shots(0)
@combine(SELECTION, ORDER, SEED, SPLIT, CHAT)
@positive("--limit", "Records to show.", 1)
@JSON
def show(task: str, as_json: bool, **settings: Any) -> None:
    """Show what the model will see: parts coloured, the loss mask, token counts."""
    from dataclasses import asdict

    from promptkit.report.prompt_view import print_view
    from promptkit.verbs import show_prompts

    views = show_prompts(task, **settings)
    if as_json:
        _print_json({"task": task, "prompts": [asdict(view) for view in views]})
    else:
        for view in views:
            print_view(view, _console())


@cli.command()
@click.argument("paths", nargs=-1, type=click.Path())
@JSON
def lint(paths: Sequence[str], as_json: bool) -> None:
    """Find defects in templates and tasks, without a model: all that can be found, or those of PATHS."""
    result = promptkit.lint(paths)
    if as_json:
        _print_json(
            {
                "tasks": result.tasks,
                "templates": result.templates,
                "pairs": result.pairs,
                "defects": [str(defect) for defect in result.defects],
            }
        )
    else:
        for defect in result.defects:
            click.echo(str(defect))
        checked = f"{result.templates} templates, {result.tasks} tasks, {result.pairs} pairs of both"
        click.echo(f"{checked}: {len(result.defects)} defects", err=True)
    if result.defects:
        raise click.exceptions.Exit(1)


@cli.command()
@click.argument("run", type=click.Path())
@DATA
@click.option("--out", type=click.Path(), help="An empty folder, or one with an earlier report. Default: RUN/report.")
@JSON
def report(run: str, data: str | None, out: str | None, as_json: bool) -> None:
    """Show a finished RUN again: its tables here; a page, figures and numbers in a folder."""
    from promptkit.report.writing import print_report, write_report

    with _tracking() as track:
        kind, result = write_report(run, data=data, out=out, track=track)
    if as_json:
        return _print_json(result)
    return print_report(kind, result, _console())


@cli.command("list")
@click.argument(
    "kind",
    required=False,
    type=click.Choice(["tasks", "templates", "methods", "selections", "orders", "presets", "models"]),
)
@JSON
def list_(kind: str | None, as_json: bool) -> None:
    """List tasks, templates, methods, selections, orders and models that can be named."""
    from promptkit.verbs import list_names

    names = list_names(kind)
    if as_json:
        _print_json(names)
        return
    for title, entries in names.items():
        if kind is None:
            click.secho(title, bold=True)
        width = max(map(len, entries), default=0) + 2
        for name, description in entries.items():
            click.echo(f"{'' if kind else '  '}{name:<{width}}{description}".rstrip())


def _is_rows(source: str) -> bool:
    """Whether an argument names a file of rows rather than a task."""
    return source.endswith(".jsonl") or (Path(source).is_file() and not source.endswith(".toml"))


def _for_rows(settings: dict[str, Any], verb: str) -> dict[str, Any]:
    """Drop the options that only a task has a use for; a usage error where one was given."""
    kept = {
        "score": {
            *("model", "chat", "dtype", "device", "batch_tokens", "memory", "limit", "calibrate"),
            *("samples", "temperature", "top_p", *(["seed"] if settings.get("samples", 1) > 1 else [])),
        },
        "train": set(settings) - {"templates", "data"},
    }[verb]
    context = click.get_current_context()
    for name in sorted(settings.keys() - kept):
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            option = "--" + name.replace("templates", "template").replace("_", "-")
            raise click.UsageError(f"{option} goes with a task, not with a file of rows")
    return {name: value for name, value in settings.items() if name in kept}


def _figures(result: dict[str, Any]) -> list[str]:
    from promptkit.report.figure import save_comparison

    return [str(path) for path in save_comparison(result, Path(result["run"]))]


@contextmanager
def _tracking() -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    from promptkit.report.progress import Bars

    with Bars() as bars:
        yield bars.track


def _console() -> Any:
    from rich.console import Console

    return Console(markup=False, highlight=False, emoji=False)


def _print_comparison(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print_json(result)
    else:
        from promptkit.report.table import print_comparison

        print_comparison(result, _console())


def _print_json(result: Any) -> None:
    click.echo(json.dumps(result, ensure_ascii=False, allow_nan=False))


def _print_rows(rows: Iterable[Any]) -> None:
    for row in rows:
        click.echo(json.dumps(row, ensure_ascii=False))


def _brief(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, list | tuple):
        return " ".join(f"{number:.3f}" for number in value) or "–"
    return str(value)


def main() -> None:
    """Run the command line: exit 0 done, 1 expected error on one line, 2 usage."""
    try:
        sys.exit(cli(standalone_mode=False) or 0)  # click returns the code of an Exit, and None after a verb
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("promptkit: stopped; finished cells of a run are kept, the same command goes on", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # the reader has left: nothing more to say, and nobody to say it to
        sys.exit(0)
    except (PromptkitError, OSError) as error:
        click.echo(f"promptkit: {' '.join(str(error).split())}", err=True)
        sys.exit(1)
