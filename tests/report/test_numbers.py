"""The report's tables: their numbers are the run's, in CSV exactly, in LaTeX escaped."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest

from promptkit.report.numbers import (
    NumberColumn,
    Numbers,
    ReportItem,
    count_break_even,
    count_cells,
    count_conditions,
    count_costs,
    count_items,
    count_orders,
    count_shares,
    escape_latex,
    gather_items,
    name_label,
    say_answers,
    to_csv,
    to_latex,
)
from promptkit.report.run_source import name_conditions
from promptkit.report.write_report import make_tables
from tests.helpers.study_runs import RECORDS, write_study

NASTY = Numbers(
    "nasty",
    "50 % & more\nof it",
    (
        NumberColumn("a_b", "a"),
        NumberColumn("95 %", "ci95", "interval"),
        NumberColumn("n", "n", "count"),
        NumberColumn("x", "x", "percent"),
    ),
    (('c,"d"\n\\end{tabular}', (0.125, 0.5), 1234, 1 / 3), ("[x] *", None, 0, None)),
)


def read_csv(content: bytes) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))


def test_csv_holds_values_as_computed() -> None:
    """Full precision, an interval as two columns, nothing as empty; text comes back as it was."""
    first, second = read_csv(to_csv(NASTY))
    assert first == {
        "a": 'c,"d"\n\\end{tabular}',
        "ci95_low": "0.125",
        "ci95_high": "0.5",
        "n": "1234",
        "x": "0.3333333333333333",
    }
    assert second == {"a": "[x] *", "ci95_low": "", "ci95_high": "", "n": "0", "x": ""}


def test_latex_runs_no_text() -> None:
    """What LaTeX reads is escaped, line breaks are spaces, and a bracket is no argument of the row before."""
    lines = to_latex(NASTY).decode().splitlines()
    assert lines[1] == "% 50 % & more of it"
    assert lines[2] == r"\begin{tabular}{lrrr}"
    assert lines[4] == r"a\_b & 95 \% & n & x \\"
    assert (
        lines[6] == r"c,\textquotedbl{}d\textquotedbl{} \textbackslash{}end\{tabular\} & 12.5--50.0 & 1,234 & 33.3 \\"
    )
    assert lines[7] == r"{[x] *} & -- & 0 & -- \\"
    assert escape_latex(r"$\input{x}$ ~^#") == (r"\$\textbackslash{}input\{x\}\$ \textasciitilde{}\textasciicircum{}\#")


def test_long_tables_break_over_pages() -> None:
    """More than forty rows are a longtable."""
    many = Numbers("many", "many", (NumberColumn("a", "a"),), (("x",),) * 41)
    assert rb"\begin{longtable}{l}" in to_latex(many)
    assert rb"\usepackage{longtable}" in to_latex(many)


def test_tables_are_the_run_s(tmp_path: Path) -> None:
    """A row per condition, cell and order, with the figures of the result."""
    source = write_study(tmp_path / "run")
    result = source.result
    cells = read_csv(to_csv(count_cells(source)))
    assert [float(row["accuracy"]) for row in cells] == [cell["accuracy"] for cell in result["cells"]]
    assert [(row["draw"], row["order"]) for row in cells[:4]] == [("0", "0"), ("0", "1"), ("1", "0"), ("1", "1")]
    conditions = read_csv(to_csv(count_conditions(source)))
    assert [row["condition"] for row in conditions] == ["few-shot k=2", "few-shot k=4"]
    assert [row["k"] for row in conditions] == ["2", "4"]
    assert [float(row["mean"]) for row in conditions] == [each["accuracy"]["mean"] for each in result["methods"]]
    assert len(read_csv(to_csv(count_orders(source)))) == 8
    shares = read_csv(to_csv(count_shares(source)))
    assert sum(float(row["share"]) for row in shares) == pytest.approx(1)


def test_calibrations_have_a_table(tmp_path: Path) -> None:
    """A row per condition and score; a run without further scores has no such table."""
    source = write_study(tmp_path / "run", shots=(2,))
    assert "calibrations" not in make_tables(source, gather_items(source))
    accuracy = {"mean": 0.5, "std": 0.125, "min": 0.25, "max": 0.75, "ci95": [0.25, 0.75]}
    readings = [{"name": name, "accuracy": accuracy} for name in ("sum", "batch")]
    methods = [{**method, "calibrations": readings} for method in source.result["methods"]]
    calibrated = write_study(tmp_path / "other", shots=(2,), methods=methods)
    table = make_tables(calibrated, gather_items(calibrated))["calibrations"]
    assert table.shown() == [
        ["few-shot k=2", name, "4", "50.0", "25.0–75.0", "12.5", "25.0", "75.0"] for name in ("sum", "batch")
    ]


def test_break_even_that_never_comes_says_so(tmp_path: Path) -> None:
    """A count is a number, none is `never`, in every form."""
    counts = {"few-shot": {"items": 1234, "items_prefix_shared": None}}
    table = count_break_even(write_study(tmp_path / "run", break_even=counts))
    assert table.shown() == [["few-shot", "1,234", "never"]]
    assert to_csv(table).decode().splitlines()[1] == "few-shot,1234,never"


def test_conditions_are_named_by_what_differs(tmp_path: Path) -> None:
    """The template is in the name where there are several."""
    one = write_study(tmp_path / "one", shots=(4,))
    two = write_study(tmp_path / "two", shots=(4,), templates=("films/plain", "films/terse"))
    assert list(name_conditions(one.result).values()) == ["few-shot k=4"]
    assert list(name_conditions(two.result).values()) == ["few-shot k=4 · films/plain", "few-shot k=4 · films/terse"]


def test_records_that_flip_most_come_first(tmp_path: Path) -> None:
    """By the share of cells that are right, the nearest to a half first; every record of every cell is counted."""
    source = write_study(tmp_path / "run")
    items = gather_items(source)
    right = {f"r{item}": sum((cell + 1) * item % 3 != 0 for cell in range(8)) / 8 for item in range(RECORDS)}
    assert {item.id: item.right for item in items} == right
    away = [abs(item.right - 0.5) for item in items]
    assert away == sorted(away)
    assert items[-1].right == 0.0
    assert {item.cells for item in items} == {8}
    r1 = next(item for item in items if item.id == "r1")
    assert r1.label == "positive"
    assert r1.answers == (("positive", 6), ("negative", 2))
    row = next(row for row in read_csv(to_csv(count_items(items))) if row["id"] == "r1")
    assert row == {"id": "r1", "label": "positive", "cells": "8", "right": "0.75", "answers": "positive 6, negative 2"}


def test_records_of_one_id_are_told_apart(tmp_path: Path) -> None:
    """Each is a record of its own, in every cell the nth of its id."""
    source = write_study(tmp_path / "run")
    halved = [replace(each, ids=[f"r{item // 2}" for item in range(RECORDS)]) for each in source.answers]
    items = gather_items(replace(source, answers=tuple(halved)))
    assert len(items) == RECORDS
    assert {item.cells for item in items} == {8}
    told = {2 * int(item.id[1:]) + item.nth: item.right for item in items}
    assert told == {int(item.id[1:]): item.right for item in gather_items(source)}


def test_costs_are_of_the_records_asked(tmp_path: Path) -> None:
    """Of a budget a cell was asked a part of the records, which its cost is divided by."""
    source = write_study(tmp_path / "run")
    cells = [{**cell, "n": 5} for cell in source.result["cells"]]
    told = read_csv(to_csv(count_costs(replace(source, result={**source.result, "cells": cells}))))
    assert [float(row["flop_per_item"]) for row in told] == [2e9 / 5, 4e9 / 5]


def test_answers_are_told_by_their_words() -> None:
    """Labels by their words, free text as it is, what was not read as unread; of many answers the first five."""
    assert name_label("1", ["no", "yes"]) == "yes"
    assert name_label("1", None) == "1"
    assert name_label("17", ["no", "yes"]) == "17"
    assert name_label(None, ["no", "yes"]) == "unread"
    many = ReportItem("r", "1", 0.5, 7, tuple((str(number), 1) for number in range(7)))
    assert say_answers(many) == "0 1, 1 1, 2 1, 3 1, 4 1, …"


def test_no_cell_is_run_by_a_spreadsheet() -> None:
    """Headers and texts that begin as a formula does have an apostrophe in front; numbers stay numbers."""
    table = Numbers("t", "T", (NumberColumn("a", "a"), NumberColumn("b", "=b")), (("=1", -0.5),))
    assert list(csv.reader(io.StringIO(to_csv(table).decode(), newline=""))) == [["a", "'=b"], ["'=1", "-0.5"]]
