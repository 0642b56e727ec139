"""Define the verbs that measure: compare, study, score, rerun, report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from promptkit.cli.arguments import follow_card, for_rows, is_given, is_rows
from promptkit.cli.options import (
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
    OVERLONG_OR_SKIP,
    SAMPLING,
    SEED,
    SELECTION,
    SPLIT,
    SYSTEM,
    TASK,
    TEMPLATE,
    TRAIN_LIMIT,
    TRAINING,
    NumberList,
    Words,
    combine,
    positive,
    shots,
)
from promptkit.cli.output import console, echo, print_json, print_result, print_rows, tracking, warn_of_notes
from promptkit.data.local import DataFiles


@click.command()
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
    "--train-sizes",
    type=NumberList(),
    default=(),
    help="Curves: LoRA on so many records each, instead of k and the pool, and demonstrations retrieved from as many.",
)
@click.option(
    "--retrieval", help="With --train-sizes: the selection that retrieves, or none. Default: bm25, or --selection."
)
@combine(TRAIN_LIMIT, SEED, SPLIT, CHAT, SYSTEM, DTYPE, DEVICE)
@combine(*TRAINING)
@combine(OVERLONG_OR_SKIP, BATCH, MEMORY, CALIBRATE, *SAMPLING)
@click.option("--prices", type=click.Path(), help="A TOML file of prices, to tell costs in money too.")
@combine(OUT_RUN, JSON)
def compare(
    task: str,
    model: str,
    data: DataFiles | None,
    out: str | None,
    as_json: bool,
    device: str | None,
    **settings: Any,
) -> None:
    """Put methods side by side on the same records of TASK: accuracy, stability, cost.

    TASK is a name (see `promptkit list tasks`) or a TOML file. A run that was stopped goes on when the
    same command is given again.
    """
    from promptkit.experiments.compare import compare as run

    given = [name for name in settings if is_given(name)]
    with tracking() as track:
        result = run(task, model=model, data=data, out=out, device=device, track=track, **settings, explicit=given)
        result["figures"] = _figures(result)
    warn_of_notes(result)
    print_result(result, as_json)


@click.command()
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
@click.option("--orders", type=Words(), help="Of each choice: how many, all, names, or globale, locale:4. Default: 4.")
@click.option("--train-sizes", type=NumberList(), help="LoRA on so many records each. Default: all.")
@positive("--seeds", "LoRA runs.", 3)
@combine(*TRAINING)
@click.option("--models", type=Words(), help="Several models, in place of --model.")
@click.option(
    "--test-on", "tests", multiple=True, help="Another task to test on too, TASK or TASK=DATA: out of domain."
)
@positive("--limit", "Test records after a seeded shuffle.", 200)
@combine(TRAIN_LIMIT, SEED, SPLIT, CHAT, SYSTEM, DTYPE, OVERLONG, BATCH, MEMORY, CALIBRATE)
@click.option("--budget", help="Of the grid, so many calls (one prompt each) where they tell most, or minutes: 10m.")
@click.option("--strategy", type=click.Choice(["halving", "thompson"]), help="How a budget is spent. Default: halving.")
@positive("--workers", "Processes that fill the run folder together.", 1)
@click.option("--dry-run", is_flag=True, help="Say how many cells, tokens and minutes it will take, and stop.")
@combine(DEVICE, OUT_RUN, JSON)
def study(task: str, as_json: bool, **settings: Any) -> None:
    """Vary demonstrations, their number and order, templates, labels and more: what moves the answer, and how far.

    Every combination of what is given is a cell. The same command goes on where it was stopped. With the same --out,
    further values of an axis compute only what is new. What is given here replaces what a preset says.
    """
    from promptkit.experiments.study import study as run

    source = click.get_current_context().get_parameter_source
    given = {name: value for name, value in settings.items() if source(name) is not click.core.ParameterSource.DEFAULT}
    with tracking() as track:
        result = run(task, track=track, explicit=[*given], **given)
    warn_of_notes(result)
    if as_json:
        return print_json(result)
    from promptkit.report.study_table import print_forecast, print_study

    return (print_forecast if given.get("dry_run") else print_study)(result, console())


@click.command()
@click.argument("source", metavar="TASK or FILE.jsonl")
@combine(MODEL, TEMPLATE, DATA)
@shots(0)
@combine(SELECTION, ORDER)
@positive("--draws", "Draws of demonstrations.", 1)
@positive("--limit", "Test records after a seeded shuffle, or the first rows of a file. Default: all.")
@positive("--train-limit", "Pool for demonstrations after a seeded shuffle. Default: all.")
@combine(
    SEED,
    SPLIT,
    CHAT,
    SYSTEM,
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
    from promptkit.cli.verbs.row_file import score_file
    from promptkit.cli.verbs.scoring import score_task

    given = [name for name in settings if is_given(name) and name != "shots"]
    settings = follow_card(settings, source)
    with tracking() as track:
        if is_rows(source):
            result = score_file(source, track=track, **for_rows(settings, "score"))
        else:
            result = score_task(source, track=track, **settings, explicit=given)
    rows = result.pop("rows")
    if as_json:
        print_json({**result, "rows": rows} if scores else result)
    elif scores or not result["methods"]:  # without labels the scores are all there is
        for said in result["cautions"]:
            echo(f"note: {said}", err=True)
        print_rows(rows)
    else:
        print_result(result, as_json=False)


@click.command()
@click.argument("run", type=click.Path())
@DATA
@click.option("--out", type=click.Path(), help="An empty folder, or one with an earlier report. Default: RUN/report.")
@JSON
def report(run: str, data: DataFiles | None, out: str | None, as_json: bool) -> None:
    """Show a finished RUN again: its tables here; a page, figures and numbers in a folder."""
    from promptkit.report.write_report import print_report, write_report

    with tracking() as track:
        kind, result = write_report(run, data=data, out=out, track=track)
    if as_json:
        return print_json(result)
    return print_report(kind, result, console())


@click.command()
@click.argument("run", type=click.Path())
@DATA
@click.option("--model", help="Where the model is now. Default: where it was.")
@click.option("--out", type=click.Path(), help="The new run's folder. Default: RUN-rerun.")
@combine(DEVICE, JSON)
def rerun(run: str, as_json: bool, **places: Any) -> None:
    """Run the command of RUN again, with the task and template files it kept, and compare every cell.

    Works for compare, score and study, on any machine that has the data and the model: give --data and --model where
    they are no longer where they were. Exits with 1 where cells differ
    by more than rounding.
    """
    from promptkit.cli.verbs.rerunning import rerun as run_again

    with tracking() as track:
        result = run_again(run, track=track, **places)
    if as_json:
        print_json(result)
    else:
        for line in _tell(result):
            click.echo(line)
    if not result["reproduced"]:
        raise click.exceptions.Exit(1)


def _tell(result: dict[str, Any]) -> list[str]:
    """Return in words how the cells of a run and of its rerun compare."""
    count = result["cells"]
    lines = [f"{result['equal']} of {count} cells are equal, {result['within_rounding']} within rounding"]
    for kind, said in (("different", "differs"), ("missing", "is missing")):
        for cell in result[kind]:
            place = ", ".join(f"{key} {value}" for key, value in cell.items() if key != "difference")
            gap = cell.get("difference")
            lines.append(f"{said}: {place}" + (f" (by {gap:.2g})" if gap is not None else ""))
    return [*lines, f"run    {result['rerun']}"]


def _figures(result: dict[str, Any]) -> list[str]:
    from promptkit.report.comparison_figure import save_comparison
    from promptkit.report.curve_figure import save_curves

    folder = Path(result["run"])
    return [str(path) for path in (*save_comparison(result, folder), *save_curves(result, folder))]
