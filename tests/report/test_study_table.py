"""A study in the terminal and as tables: its paper's forms, tests, leanings, ranks, and a budget's estimates."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from rich.console import Console

from promptkit.report.numbers import count_conditions, to_csv, to_latex
from promptkit.report.study_numbers import count_study
from promptkit.report.study_table import print_forecast, print_study, print_table
from promptkit.report.write_report import write_report
from tests.helpers.study_runs import write_study

FORM = {
    "title": "Orders [best]",
    "header": ["order-search", "mean ± std", "runs"],
    "kinds": ["text", "plus-minus", "count"],
    "rows": [["all", [0.638, 0.058], 24], ["globale:4", None, None]],
}
PLACE = {"model": "tiny", "method": "few-shot", "template": "films/plain", "selection": "balanced"}
BEST = {
    "of": "conditions",
    "best": {**PLACE, "k": "2"},
    "items": 20,
    "resolved": 0.2,
    "rows": [
        {
            "factors": {**PLACE, "k": "4"},
            "lead": 0.05,
            "ci95": [-0.05, 0.15],
            "p_value": 0.0004,
            "adjusted": 0.25,
            "discordance": 0.1,
            "items_needed": 330,
        }
    ],
}
RANKS = {
    "kind": "score",
    "first": "sum",
    "second": "batch",
    "conditions": 8,
    "spearman": 0.25,
    "spearman_ci95": [-0.5, 0.75],
    "kendall": 0.2,
    "kendall_ci95": [-0.4, 0.7],
    "reversal": 0.125,
    "reversal_gap": 0.02,
}


BY_TEST = [
    {
        "factors": {**PLACE, "k": "2", "test": test},
        "runs": runs,
        "n": 20,
        "accuracy": {"mean": mean, "std": 0.05 * (runs > 1), "min": mean, "max": mean, "ci95": [0.5, 0.9]},
    }
    for test, runs, mean in (("nothing", 2, 0.75), ("reels", 1, 0.625))
]


def printed(result: Any) -> str:
    """Return what the terminal shows, 80 columns wide."""
    console = Console(file=io.StringIO(), width=80, markup=False, highlight=False)
    print_study(result, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_figures_that_do_not_fit_stand_below_with_their_names() -> None:
    """A table wider than the terminal is cut between columns of figures; every part names its rows."""
    console = Console(file=io.StringIO(), width=40, markup=False, highlight=False)
    rows = [{"template": f"sentiment/{n}", **{f"{k} · sum": f"{n}{k}.5" for k in range(6)}} for n in (1, 2)]
    print_table(console, "Title", rows)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 40
    assert [sum(f"sentiment/{n}" in line for line in lines) for n in (1, 2)] == [3, 3]
    assert all(sum(figure in line for line in lines) == 1 for row in rows for figure in list(row.values())[1:])


def test_tables_hold_what_the_result_says(tmp_path: Path) -> None:
    """Pairs are two columns of a CSV file, and nothing is empty there and a dash in LaTeX."""
    source = write_study(tmp_path, forms=[FORM], best=BEST, agreement=[RANKS])
    tables = {table.name: table for table in count_study(source.result)}
    assert list(tables) == ["form-1", "tests", "ranks"]
    first, second = csv.DictReader(io.StringIO(to_csv(tables["form-1"]).decode(), newline=""))
    assert (first["mean ± std_mean"], first["mean ± std_std"], first["runs"]) == ("0.638", "0.058", "24")
    assert second["mean ± std_mean"] == second["runs"] == ""
    assert tables["form-1"].shown() == [["all", "63.8 ± 5.8", "24"], ["globale:4", "–", "–"]]
    assert tables["tests"].shown() == [["4", "5.0", "-5.0–15.0", "< 0.001", "0.250", "330"]]
    assert tables["ranks"].shown()[0][2:6] == ["8", "0.25", "-0.50 to 0.75", "12.5"]
    assert b"globale:4 & -- & --" in to_latex(tables["form-1"])


def test_the_terminal_shows_forms_before_conditions(tmp_path: Path) -> None:
    """The paper's table comes first; conditions say how far they are behind the best and how sure that is."""
    text = printed(write_study(tmp_path, forms=[FORM], best=BEST, agreement=[RANKS]).result)
    assert text.index("Orders [best]") < text.index("Conditions, accuracy in %")
    assert "63.8 ± 5.8" in text
    lines = text.splitlines()
    two, four = (next(line for line in lines if line.split()[:1] == [k]) for k in ("2", "4"))
    assert two.split()[-2:] == ["best", "–"]
    assert four.split()[-2:] == ["5.0", "0.250"]
    assert "turn round, %" in " ".join(text.split())


def test_older_runs_are_shown_without_what_they_lack(tmp_path: Path) -> None:
    """A result without forms, tests or ranks has none of these tables."""
    source = write_study(tmp_path)
    assert count_study(source.result) == []
    assert "Conditions, accuracy in %" in printed(source.result)


def test_other_tests_stand_in_the_terminal_on_the_page_and_beside_it(tmp_path: Path) -> None:
    """Each condition has a row per test, with the number of its records; of one run there is no spread."""
    away = [{**write_study(tmp_path).result["cells"][0], "factors": BY_TEST[1]["factors"]}]
    result = write_study(tmp_path, by_test=BY_TEST).result
    text = printed({**result, "away": away})
    lines = [line.split() for line in text.splitlines()]
    assert ["nothing", "20", "2", "75.0", "50.0–90.0", "5.0", "75.0", "75.0"] in lines
    assert ["reels", "20", "1", "62.5", "50.0–90.0", "–", "–", "–"] in lines
    assert "1 more cell on reels" in " ".join(text.split())
    _, written = write_report(tmp_path)
    page = Path(written["report"]["page"]).read_text()
    assert page.index('id="by-test"') < page.index("reels") < page.index('id="runs"')
    (table,) = [name for name in written["report"]["numbers"] if name.endswith("by-test.csv")]
    assert Path(table).read_text().splitlines()[2] == "reels,20,1,0.625,0.5,0.9,,,"


def test_one_run_has_no_spread(tmp_path: Path) -> None:
    """Of a condition with one run the standard deviation and the extremes are dashes, and empty in its CSV file."""
    source = write_study(tmp_path, orders=(("0",),))
    row = next(line.split() for line in printed(source.result).splitlines() if line.split()[:2] == ["2", "1"])
    assert row[-2:] == ["–", "–"]
    first = next(csv.DictReader(io.StringIO(to_csv(count_conditions(source)).decode())))
    assert first["mean"]
    assert first["std"] == first["min"] == first["max"] == first["spread"] == ""


def test_a_dry_run_is_told_in_words() -> None:
    """Cells, tokens and minutes, and what is in neither."""
    console = Console(file=io.StringIO(), width=80, markup=False, highlight=False)
    counts = {"cells": 1, "trainings": 3, "tokens_computed": 12345, "minutes": 1.5}
    print_forecast({"task": "films", **counts, "run": "runs/x"}, console)
    assert isinstance(console.file, io.StringIO)
    text = " ".join(console.file.getvalue().split())
    assert text.startswith("films · 1 cell ")
    assert "about 12,345 tokens, 1.5 minutes on this machine" in text
    assert "Trainings (3) and order searches are in neither figure. run runs/x" in text


def test_the_page_shows_forms_and_escapes_them(tmp_path: Path) -> None:
    """A form stands on the page before the figures, its text as text, and its numbers beside the page."""
    write_study(tmp_path, forms=[{**FORM, "title": "<b>Orders</b>"}])
    _, result = write_report(tmp_path)
    page = Path(result["report"]["page"]).read_text()
    assert "&lt;b&gt;Orders&lt;/b&gt;" in page
    assert page.index('id="forms"') < page.index('id="runs"')
    assert any(name.endswith("form-1.csv") for name in result["report"]["numbers"])
