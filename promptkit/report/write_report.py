"""Write a run's report: the page, the figures, the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from promptkit.data.local import Data, DataFiles, as_data
from promptkit.errors import DataError, PromptkitError
from promptkit.experiments.executor import Track
from promptkit.report import numbers
from promptkit.report.comparison_table import print_comparison
from promptkit.report.curve_numbers import count_curves
from promptkit.report.numbers import Numbers, ReportItem
from promptkit.report.page import Texts, render_page
from promptkit.report.plots import make_plots
from promptkit.report.rebuild import ShownPrompt, first_lines, reload_records, show_extremes
from promptkit.report.rendering import render_plot
from promptkit.report.report_folder import check_folder, write_folder
from promptkit.report.run_source import RunSource, load_source
from promptkit.report.study_numbers import count_study
from promptkit.report.study_table import print_study
from promptkit.storage.files import check_inside


def write_report(
    run: str | Path, *, out: str | Path | None = None, data: Data | None = None, track: Track | None = None
) -> tuple[str, dict[str, Any]]:
    """Write the report of a run folder; return the command that made the run, and its result with `report`.

    `report` holds the paths `page`, `figures` and `numbers`, and `left_out`: what could not be shown, and why. `out`
    is a folder that is empty or holds an earlier report (default: `report` in the run folder). `data` is where the
    records are, for a run that was made with `--data`: without them the page shows no prompts and no texts.

    Raises RunError for a run that is not finished or damaged, and a folder that holds anything else; DataError where
    `data` is not there.
    """
    given = as_data(data)
    if isinstance(given, DataFiles) and not Path(given).exists():
        raise DataError(f"{given}: no such file or folder")
    source = load_source(Path(run))
    folder = Path(out) if out else source.folder / "report"
    if not out:
        check_inside(source.folder, folder)
    check_folder(folder)
    items = numbers.gather_items(source)
    tables = make_tables(source, items)
    prompts, texts = _rebuild(source, data)
    plots, drawings = make_plots(source, items), []
    progress = track("figures") if track else None
    for plot in plots:
        drawings.append((plot, render_plot(plot)))
        if progress:
            progress(len(drawings), len(plots))
    inline = [(plot, drawing.inline) for plot, drawing in drawings]
    files = {"report.html": render_page(source, inline, tables, items, prompts, texts)}
    for _, drawing in drawings:
        files |= {f"figures/{name}": content for name, content in drawing.files.items()}
    for name, table in tables.items():
        files |= {f"numbers/{name}.csv": numbers.to_csv(table), f"numbers/{name}.tex": numbers.to_latex(table)}
    write_folder(folder, files)
    left_out = {name: why for name, why in (("prompts", prompts), ("texts", texts)) if isinstance(why, str)}
    written = {
        "page": str(folder / "report.html"),
        "figures": [str(folder / name) for name in files if name.startswith("figures/")],
        "numbers": [str(folder / name) for name in files if name.startswith("numbers/")],
        "left_out": left_out,
    }
    return source.kind, {**source.result, "report": written}


def make_tables(source: RunSource, items: Sequence[ReportItem]) -> dict[str, Numbers]:
    """Return the tables that have rows, by their names."""
    made = [
        *(count_study(source.result) if source.kind == "study" else ()),
        numbers.count_conditions(source),
        numbers.count_calibrations(source),
        *count_curves(source.result),
        numbers.count_shares(source),
        numbers.count_levels(source),
        numbers.count_orders(source),
        numbers.count_costs(source),
        numbers.count_break_even(source),
        numbers.count_cells(source),
        numbers.count_items(items),
    ]
    return {table.name: table for table in made if table.rows}


def _rebuild(source: RunSource, data: Data | None) -> tuple[Sequence[ShownPrompt] | str, Texts | str]:
    """Return the best and worst prompts and the records' texts, or for each why it cannot be shown."""
    try:
        task, splits = reload_records(source, data)
    except PromptkitError as error:
        return str(error), str(error)
    places = numbers.number_ids(record.id for record in splits.test)
    texts = {place: first_lines(record) for place, record in zip(places, splits.test, strict=True)}
    try:
        return show_extremes(source, task, splits), texts
    except PromptkitError as error:
        return str(error), texts


def print_report(kind: str, result: Mapping[str, Any], console: Console) -> None:
    """Print what `write_report` returned: the tables as the run's own command prints them, then where the files are."""
    {"study": print_study, "compare": print_comparison}[kind](result, console)
    report = result["report"]
    lines = [f"page   {report['page']}"]
    lines += [f"{name} left out: {why}" for name, why in report["left_out"].items()]
    console.print(Text("\n".join(lines)), highlight=False, soft_wrap=True)  # paths stay whole
