"""A study in the terminal and as tables: its paper's forms, tests, leanings, ranks, and a budget's estimates."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from rich.console import Console

from promptkit.report.numbers import to_csv, to_latex
from promptkit.report.study import print_study, print_table
from promptkit.report.study_numbers import count_study
from promptkit.report.writing import write_report
from tests.study_runs import write_study

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


def test_the_page_shows_forms_and_escapes_them(tmp_path: Path) -> None:
    """A form stands on the page before the figures, its text as text, and its numbers beside the page."""
    write_study(tmp_path, forms=[{**FORM, "title": "<b>Orders</b>"}])
    _, result = write_report(tmp_path)
    page = Path(result["report"]["page"]).read_text()
    assert "&lt;b&gt;Orders&lt;/b&gt;" in page
    assert page.index('id="forms"') < page.index('id="runs"')
    assert any(name.endswith("form-1.csv") for name in result["report"]["numbers"])
