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

Function = Callable[..., Any]


class Numbers(click.ParamType[tuple[int, ...]]):
    """A list of whole numbers: `4` or `0,4,16`."""

    name = "N[,N…]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Return the numbers; a usage error for anything else."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(dict.fromkeys(int(part) for part in str(value).split(",")))
        except ValueError:
            self.fail(f"{value!r} is not a list of whole numbers such as 4 or 0,4,16", param, ctx)


class Words(click.ParamType[tuple[str, ...]]):
    """A list of words, separated by commas."""

    name = "NAME[,NAME…]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Return the words."""
        return value if isinstance(value, tuple) else tuple(part.strip() for part in str(value).split(","))


def _options(*options: Function) -> Callable[[Function], Function]:
    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _positive(name: str, help_: str, default: int | None = None) -> Function:
    return click.option(name, type=click.IntRange(min=1), default=default, show_default=default is not None, help=help_)


def _shots(default: int) -> Function:
    return click.option(
        "-k",
        "--shots",
        type=Numbers(),
        default=(default,),
        show_default=str(default),
        help="Demonstrations per prompt; several numbers are each shown.",
    )


_task = click.argument("task", default="reviews")
_model = click.option(
    "--model", default="tiny", show_default=True, help="A name, a hub id, a folder or an adapter folder."
)
_device = click.option("--device", help="Where torch computes: cpu, cuda, cuda:1. Default: cuda where there is one.")
_dtype = click.option("--dtype", default="float32", show_default=True, help="float32, bfloat16 or float16.")
_template = click.option("--template", "templates", multiple=True, help="A template's name or glob; may be repeated.")
_data = click.option(
    "--data",
    type=click.Path(),
    help="Local JSONL, CSV or Parquet in place of the task's source: a file, or a folder with one file per split.",
)
_seed = click.option("--seed", type=int, default=0, show_default=True, help="Seed of every draw and shuffle.")
_split = click.option("--split", default="test", show_default=True, help="The split to take queries from.")
_chat = click.option(
    "--chat/--plain",
    default=False,
    help="Render through the tokenizer's chat template, or as plain text (the default).",
)
_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout and nothing else.")
_selection = click.option("--selection", help="How demonstrations are chosen; see `promptkit list selections`.")
_order = click.option("--order", help="Their sequence: see `promptkit list orders`, or the number of a permutation.")
_batch = click.option("--batch-tokens", type=click.IntRange(min=1), help="Tokens in one forward pass at most.")
_overlong = click.option(
    "--overlong",
    type=click.Choice(["error", "drop"]),
    default="error",
    show_default=True,
    help="Prompts beyond the window: refuse them, or drop whole demonstrations and count.",
)
_out_run = click.option("--out", type=click.Path(), help="The run folder. Default: runs/TASK-HASH.")
_train_limit = _positive("--train-limit", "Training records (and pool for demonstrations) after a seeded shuffle.", 512)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(promptkit.__version__, package_name="promptkit")
def cli() -> None:
    """Prompts and training pairs from one template, compared by accuracy, stability and cost."""


@cli.command()
@_options(_task, _model, _template, _data)
@click.option(
    "--methods",
    type=Words(),
    default=(),
    help="Some of those `promptkit list methods` shows. Default: all that fit.",
)
@_shots(4)
@_options(_selection, _order)
@_positive("--draws", "Draws of choice and order per number of shots.", 10)
@_positive("--seeds", "LoRA runs.", 3)
@_positive("--limit", "Test records after a seeded shuffle.", 200)
@_options(_train_limit, _seed, _split, _chat, _dtype, _device)
@_positive("--rank", "Rank of the LoRA adapters.", 8)
@_positive("--epochs", "Passes over the training records.", 5)
@click.option("--learning-rate", type=float, help="Default: by the width of the model.")
@_options(_overlong, _batch, _out_run, _json)
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
@click.argument("source", metavar="TASK or FILE.jsonl")
@_options(_model, _template, _data)
@_shots(0)
@_options(_selection, _order)
@_positive("--draws", "Draws of demonstrations.", 1)
@_positive("--limit", "Test records after a seeded shuffle. Default: all.")
@_positive("--train-limit", "Pool for demonstrations after a seeded shuffle. Default: all.")
@_options(_seed, _split, _chat, _dtype, _device, _overlong, _batch, _out_run, _json)
@click.option("--scores", is_flag=True, help="Also every item's scores: with --json as `rows`.")
def score(source: str, scores: bool, as_json: bool, **settings: Any) -> None:
    """Score conditions of a TASK, or ready-made rows of a FILE.jsonl, without training.

    A row of a file is {"prompt": text, "choices": [text, …], "label": index (optional), "id" (optional)}.
    """
    from promptkit.verbs import score_file, score_task

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
@_options(_model, _template, _data, _seed, _chat, _dtype, _device)
@_positive("--train-limit", "Training records after a seeded shuffle. Default: all.")
@_positive("--rank", "Rank of the adapter.", 8)
@_positive("--epochs", "Passes over the training records.", 5)
@_positive("--batch-size", "Rows per step.", 16)
@click.option("--learning-rate", type=float, help="Default: by the width of the model.")
@click.option("--out", type=click.Path(), help="The adapter's folder. Default: adapters/NAME-seedN.")
@_json
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
@_options(_dtype, _device, _json)
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
@_task
@click.option(
    "--as",
    "kind",
    type=click.Choice(["prompts", "pairs"]),
    default="prompts",
    show_default=True,
    help="In-context-learning prompts, or training pairs.",
)
@_options(_template, _data)
@_shots(0)
@_options(_selection, _order, _seed)
@click.option("--split", help="Default: test for prompts, train for pairs.")
@_positive("--limit", "Records after a seeded shuffle. Default: all.")
@_positive("--train-limit", "Pool for demonstrations after a seeded shuffle. Default: all.")
@click.option("--chat/--plain", default=False, help="Add chat messages to every row.")
@click.option("--out", type=click.Path(), help="A new .jsonl or .parquet file. Default: JSONL on stdout.")
@_json
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
@_options(_task, _model, _template, _data)
@_shots(0)
@_options(_selection, _order, _seed, _split, _chat)
@_positive("--limit", "Records to show.", 1)
@_json
def show(task: str, as_json: bool, **settings: Any) -> None:
    """Show what the model will see: parts coloured, the loss mask, token counts."""
    from dataclasses import asdict

    from promptkit.verbs import show_prompts

    views = show_prompts(task, **settings)
    if as_json:
        _print_json({"task": task, "prompts": [asdict(view) for view in views]})
    else:
        for view in views:
            _print_view(view)


@cli.command()
@click.argument("paths", nargs=-1, type=click.Path())
@_json
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


@cli.command("list")
@click.argument(
    "kind",
    required=False,
    type=click.Choice(["tasks", "templates", "methods", "selections", "orders", "models"]),
)
@_json
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
        "score": {"model", "chat", "dtype", "device", "batch_tokens", "limit"},
        "train": set(settings) - {"templates", "data"},
    }[verb]
    context = click.get_current_context()
    for name in sorted(settings.keys() - kept):
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            option = "--" + name.replace("templates", "template").replace("_", "-")
            raise click.UsageError(f"{option} goes with a task, not with a file of rows")
    return {name: value for name, value in settings.items() if name in kept}


def _print_view(view: Any) -> None:
    from promptkit.report.prompt_view import print_counts, print_parts, print_tokens

    console = _console()
    console.rule(f"{view.template} · {view.id}", align="left")
    print_parts(view.parts, console, whitespace=True)
    print_counts(view.counts, console)
    console.rule("the training pair's tokens, those with loss in ⟦ ⟧", align="left", style="dim")
    print_tokens(view.tokens, console, whitespace=True)
    for choice in view.choices:
        console.print(f"choice {choice!r}")


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
