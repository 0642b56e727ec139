"""The comparison in the terminal: its width, its figures, its words."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from promptkit.report.comparison_table import print_comparison
from promptkit.report.units import BYTES, FLOP, SECONDS, condition_name, count_of, number, quantity, say_cells
from tests.helpers.comparisons import CONDITIONS, comparison


def printed(result: dict[str, Any], width: int = 80) -> str:
    """Return what a terminal of that width shows, without its colours."""
    stream = io.StringIO()
    print_comparison(result, Console(file=stream, width=width))
    return stream.getvalue()


def sentence(text: str) -> str:
    """Return the text with every run of white space as one space, so that wrapping does not matter."""
    return re.sub(r"\s+", " ", text)


def row(text: str, name: str) -> list[list[str]]:
    """Return the cells of every table line that begins with a name."""
    return [line.split(name)[1].split() for line in text.splitlines() if line.strip().startswith(name)]


def test_it_fits_80_columns() -> None:
    """Nothing is cut, wrapped inside a table or padded, at 80 columns."""
    text = printed(comparison())
    assert "…" not in text
    assert max(len(line) for line in text.splitlines()) <= 80
    assert [line for line in text.splitlines() if line.endswith(" ")] == []


def test_a_table_too_wide_leaves_a_column_out() -> None:
    """With long names the interval of F1 goes, and no number is cut off."""
    result = comparison()
    for method in result["methods"]:
        method["unread"] = 0
        method["macro_f1"] = method["macro_f1"] and {**method["macro_f1"], "ci95": [0.25, 0.75]}
    assert "F1 interval" in printed(result)
    result["methods"][1]["k"], result["methods"][1]["retrieval"] = 16, "bm25"
    text = printed(result)
    assert "…" not in text
    assert "F1 interval" not in text


def test_accuracy_line() -> None:
    """A method's line has runs, mean, interval, spread, macro-F1 and unread answers, in percent."""
    accuracy, _cost = row(printed(comparison()), "few-shot-cot k=4 ")[:2]
    assert accuracy == ["10", "70.2", "64.2–76.2", "5.0", "60.2–77.9", "69.2", "1.5"]


def test_one_run_has_no_spread() -> None:
    """Where there was one run, no deviation of 0.0 is claimed."""
    assert row(printed(comparison()), "zero-shot ")[0][3:5] == ["–", "–"]


def test_cost_line() -> None:
    """A method's cost is per test item, in one unit per column; training stands beside it."""
    text = printed(comparison())
    assert row(text, "few-shot k=4 ")[1] == ["122", "61", "2,600", "40.0", "512", "–", "–"]
    assert row(text, "lora 1,000 rows ")[1] == ["84", "42", "620", "10.0", "512", "800", "41.0"]
    assert re.search(r"prompted\s+computed\s+MFLOP\s+ms\s+MB\s+GFLOP\s+s\n", text)


def test_free_text_has_no_f1_and_no_chance() -> None:
    """Without labels neither macro-F1 nor chance is made up."""
    result = comparison(labels=None, chance=None)
    result["methods"][0]["macro_f1"] = None
    text = printed(result)
    assert row(text, "zero-shot ")[0][5] == "–"
    assert "chance" not in text
    assert "labels" not in text


def test_baselines_are_said() -> None:
    """What chance and the most frequent label would reach stands above the figures."""
    line = printed(comparison(majority=0.515)).splitlines()[1]
    assert line == "template sentiment/plain · chance 50.0 % · always the most frequent label 51.5 %"


def test_several_templates_are_told_apart() -> None:
    """With more than one template, the lines of each stand under its name, and sentences name it."""
    result = comparison()
    for condition in (*result["methods"][3:], *result["cells"][22:], result["paired"]["lora"]):
        condition["template"] = "sentiment/question"
    text = printed(result)
    assert [line.strip() for line in text.splitlines() if line.strip().startswith("sentiment/")] == [
        "sentiment/plain",
        "sentiment/question",
    ] * 2
    assert "few-shot k=4 (sentiment/plain, seed 3, order 3)" in sentence(text)
    assert "Equal data: few-shot-cot k=4 70.2 %" in sentence(text)  # few-shot k=4 has the other template


def test_calibrations_stand_under_their_method() -> None:
    """Every score and calibration has a line with mean, interval, spread and F1, at 80 columns."""
    result = comparison()
    for mean, method in zip((0.7, 0.8), result["methods"], strict=False):
        accuracy = {"mean": mean, "std": 0.02, "min": 0.6, "max": 0.9, "ci95": [0.5, 0.95]}
        method["calibrations"] = [
            {"name": name, "accuracy": accuracy, "macro_f1": {"mean": 0.65} if name == "batch" else None}
            for name in ("sum", "batch")
        ]
    text = printed(result)
    assert row(text, "sum ") == [["70.0", "50.0–95.0", "–", "–", "–"], ["80.0", "50.0–95.0", "2.0", "60.0–90.0", "–"]]
    assert [line[-1] for line in row(text, "batch ")] == ["65.0", "65.0"]
    assert re.search(r"few-shot k=1 *\n +sum", text)
    assert max(map(len, text.splitlines())) <= 80
    assert "scores and calibrations" not in printed(comparison())


def test_spread_is_said() -> None:
    """The widest range over draws and over seeds is put in words."""
    text = sentence(printed(comparison()))
    assert "demonstrations alone move few-shot-cot k=4 from 60.2 to 77.9 %, by 17.8 points over 10 draws" in text
    assert "seed of the training alone moves lora 4 rows from 58.8 to 65.5 %, by 6.8 points over 3 seeds" in text


def test_runs_that_are_all_as_good_are_said_to_be() -> None:
    """Where no draw moves the accuracy, no cause is named for it."""
    result = comparison()
    for method in result["methods"]:
        method["accuracy"] |= {"min": method["accuracy"]["mean"], "max": method["accuracy"]["mean"]}
    text = sentence(printed(result))
    assert "alone move" not in text
    assert re.search(r"All 10 draws of few-shot\S* k=\d are right for \d+\.\d %\.", text)


@pytest.mark.parametrize(
    ("draws", "cause"),
    [
        ([{"seed": 0, "order": "given"}, {"seed": 1, "order": "given"}], "choice of demonstrations alone moves"),
        ([{"seed": 0, "order": "3"}, {"seed": 0, "order": "5"}], "order of demonstrations alone moves"),
        ([{"seed": 0, "order": "3"}, {"seed": 1, "order": "5"}], "choice and order of demonstrations alone move"),
        ([{"seed": 0, "order": "shuffled"}, {"seed": 1, "order": "shuffled"}], "choice and order of demonstrations"),
    ],
)
def test_spread_is_laid_to_what_varied(draws: list[dict[str, Any]], cause: str) -> None:
    """Where only the order, or only the choice, differs among the draws, the other is not blamed."""
    result = comparison()
    for cell in result["cells"]:
        cell["draw"] = draws[cell["draw"]["seed"] % 2]
    assert f"The {cause}" in sentence(printed(result))


def test_the_paired_test_is_said() -> None:
    """Who is ahead, by how much, how sure, and that the prompt was picked on these records."""
    text = sentence(printed(comparison()))
    assert "The best prompt is few-shot k=4 (seed 3, order 3). Beside lora 1,000 rows (seed 0)" in text
    assert "LoRA is ahead by 9.0 points (95 % interval over records 3.5–14.5)" in text
    assert "Only the prompt is right on 12 of them, only LoRA on 30: McNemar's exact test, p = 0.008." in text
    assert "best of 32 tried on these very records, which favours prompting" in text


def test_several_seeds_are_one_trained_method() -> None:
    """With several LoRA runs the difference is of their mean, and the test of the median one."""
    result = comparison()
    result["paired"]["lora_runs"] = 3
    text = sentence(printed(result))
    assert "Beside lora 1,000 rows (mean of 3 seeds), on the same records, LoRA is ahead" in text
    assert "McNemar's exact test of the run of median accuracy (seed 0), p = 0.008" in text


def test_prompting_ahead_is_said() -> None:
    """Where prompting wins the report says so."""
    result = comparison()
    result["paired"] |= {"difference": -0.14, "ci95": [-0.2, -0.08], "p_value": 0.00002}
    text = sentence(printed(result))
    assert "the prompt is ahead by 14.0 points (95 % interval over records 8.0–20.0)" in text
    assert "p < 0.001" in text


def test_a_draw_is_said() -> None:
    """Where the interval holds zero, nobody is ahead."""
    result = comparison()
    result["paired"] |= {"difference": 0.01, "ci95": [-0.03, 0.05]}
    text = sentence(printed(result))
    assert "too close to call: LoRA minus prompt is +1.0 points (95 % interval over records -3.0 to +5.0)" in text
    assert "ahead" not in text


def test_equal_data_is_said() -> None:
    """LoRA on k records stands beside the prompts with k demonstrations."""
    text = sentence(printed(comparison()))
    assert "Equal data: few-shot k=4 75.2 % [69.2–81.2], few-shot-cot k=4 70.2 % [64.2–76.2], lora 4 rows" in text


def test_break_even_counts() -> None:
    """Both counts stand beside each other, with what they mean; no number of items is `never`."""
    result = comparison()
    result["break_even"]["zero-shot-cot"] = {"items": 0, "items_prefix_shared": None}
    text = printed(result)
    assert row(text, "few-shot k=4 ")[2] == ["1,234", "56,789"]
    assert row(text, "zero-shot-cot ")[2] == ["0", "never"]
    assert "Recomputed: each prompt computes its demonstrations again, or retrieves its own." in sentence(text)


def test_names_are_not_markup() -> None:
    """Square brackets, colons and control words in names survive as they are."""
    result = comparison(task="[red]task[/]", model=":smile:", notes=["label [positive] was never predicted"])
    text = printed(result)
    assert text.startswith("[red]task[/] · model :smile: · 200 test records · 2 labels\n")
    assert "label [positive] was never predicted" in text


def test_paths_stay_whole() -> None:
    """A path is not broken where the line ends, so that it can be copied."""
    path = "runs/" + "very-long-" * 12 + "/compare.svg"
    assert f"figure {path}\n" in printed(comparison(figures=[path]))


def test_the_documented_keys_suffice() -> None:
    """The keys that every `--json` has are enough: no template, interval, pair or record count."""
    cost = {"tokens_prompted": 10, "tokens_computed": 5, "flops": 0, "seconds": 0.0, "peak_memory_bytes": 0}
    accuracy = {"mean": 0.78, "std": 0.06, "min": 0.6, "max": 0.86}
    result = {
        "task": "sst2",
        "model": "tiny",
        "run": "runs/x",
        "labels": ["negative", "positive"],
        "chance": 0.5,
        "cells": [{"method": "few-shot", "k": 4, "n": 10, "accuracy": 0.7, "cost": cost}],
        "methods": [{"method": "few-shot", "k": 4, "runs": 24, "accuracy": accuracy, "cost": cost}],
        "break_even": {"few-shot": {"items": 12, "items_prefix_shared": None}},
    }
    assert row(printed(result), "few-shot k=4")[0] == ["24", "78.0", "–", "6.0", "60.0–86.0", "–", "0.0"]


@pytest.mark.parametrize(
    ("value", "units", "expected"),
    [
        (1.2e9, FLOP, "1.2 GFLOP"),
        (999.0, FLOP, "999 FLOP"),
        (3.4e16, FLOP, "34.0 PFLOP"),
        (0.0031, SECONDS, "3.1 ms"),
        (90.0, SECONDS, "1.5 min"),
        (0.0, SECONDS, "0 s"),
        (5.12e8, BYTES, "512 MB"),
    ],
)
def test_quantities_have_the_unit_that_suits(value: float, units: Any, expected: str) -> None:
    """Values from nothing to peta get at most three digits before the point."""
    assert quantity(value, units) == expected


def test_numbers_have_their_thousands_separated() -> None:
    """Large numbers can be read, small ones keep a digit."""
    assert [number(value) for value in (0.0, 7.25, 99.96, 12345.0)] == ["0", "7.2", "100", "12,345"]


def test_one_is_singular_and_more_are_plural() -> None:
    """A count and its noun agree, and so do the axes of a study."""
    assert [count_of(number, "cell") for number in (0, 1, 1204)] == ["0 cells", "1 cell", "1,204 cells"]
    axes = {"template": ["a", "b"], "k": ["1", "2"], "draw": ["0"], "order": ["0", "1", "2"]}
    assert say_cells({"cells": [{}] * 12, "axes": axes}) == (
        "12 cells · 2 templates x 2 numbers of demonstrations x 3 orders"
    )
    assert say_cells({"cells": [{}], "axes": {"draw": ["0"]}}) == "1 cell"


def test_condition_names() -> None:
    """Every condition has one short name, used in tables, figures and sentences alike."""
    assert [condition_name(condition) for condition in CONDITIONS] == [
        "zero-shot",
        "few-shot k=1",
        "few-shot k=4",
        "zero-shot-cot",
        "few-shot-cot k=4",
        "lora 4 rows",
        "lora 1,000 rows",
    ]
