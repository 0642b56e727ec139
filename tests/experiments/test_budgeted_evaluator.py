"""A budget of calls or minutes over the cells of a study: what is asked, kept, resumed and told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from promptkit.errors import PromptkitError, RunError, StudyError
from promptkit.experiments.budgeted_evaluator import Budget, _explain_distance, parse_budget
from promptkit.experiments.run_folder import Run
from promptkit.experiments.study import study
from promptkit.models import Model
from promptkit.report.write_report import write_report
from promptkit.scoring import score
from promptkit.stats import Interval
from promptkit.stats.budget import BudgetedSpread, Estimate
from tests.conftest import Project, own_scorer
from tests.experiments.test_compare import bytes_of, small
from tests.helpers.training_fakes import model as random_model
from tests.helpers.training_fakes import saved

__all__ = ["small"]  # a fixture

GRID: dict[str, Any] = {"limit": 6, "shots": (2,), "draws": 2, "orders": ("all",), "data": "data"}


@pytest.mark.parametrize(
    ("asked", "budget"),
    [
        (2000, Budget(calls=2000)),
        ("12", Budget(calls=12)),
        ("10m", Budget(seconds=600)),
        ("1.5h", Budget(seconds=5400)),
    ],
)
def test_a_budget_is_calls_or_time(asked: int | str, budget: Budget) -> None:
    """A bare number counts calls; m and h are minutes and hours."""
    assert parse_budget(asked) == budget


@pytest.mark.parametrize("asked", [0, "-3", "10 min", "m", "0m", "1e3", ""])
def test_other_budgets_are_refused(asked: int | str) -> None:
    """The message says what may be given."""
    with pytest.raises(StudyError, match="give a number of calls, such as 2000, or minutes or hours: 10m"):
        parse_budget(asked)


def test_a_budget_bounds_the_calls(small: Model) -> None:
    """Every prompt scored counts, no prompt is scored twice, and the Parquet file has what was asked."""
    asked: list[str] = []

    def noting(model: Model, prompts: Any, **options: Any) -> Any:
        asked.extend(prompt.text for prompt in prompts)
        return score(model, prompts, **options)

    result = study("films", model=small.name, scorer=noting, budget=14, **GRID)
    found = result["budget"]
    assert len(asked) == len(set(asked)) == found["calls"] <= 14
    assert found["full_calls"] == 4 * 6
    assert found["best"]["mean"] >= found["worst"]["mean"]
    assert found["ci95"][0] <= found["spread"] <= found["ci95"][1]
    assert sum(cell["n"] for cell in result["cells"]) == 14
    assert [method["runs"] for method in result["methods"]] == [4]
    assert len(pyarrow.parquet.read_table(Path(result["run"]) / "predictions.parquet")) == 14
    assert "14 of the full grid's 24 calls" in result["verdict"][0]


def test_all_calls_give_the_full_grids_spread(small: Model) -> None:
    """A budget that pays for everything tells what the grid itself tells."""
    whole = study("films", model=small.name, out="whole", **GRID)
    found = study("films", model=small.name, out="bought", budget=1000, **GRID)["budget"]
    accuracies = [cell["accuracy"] for cell in whole["cells"]]
    assert found["spread"] == pytest.approx(max(accuracies) - min(accuracies))
    assert found["ci95"] == pytest.approx([found["spread"]] * 2)


def test_a_stopped_search_goes_on_to_the_same_bytes(small: Model) -> None:
    """Parts of cells that were scored before a kill are not scored again, and the end is the same."""

    def without_time(folder: str) -> dict[str, Any]:
        result = json.loads(Path(folder, "study.json").read_text())
        for row in (*result["cells"], *result["methods"]):
            del row["cost"]
        del result["budget"]["seconds"], result["run"]
        return result

    study("films", model=small.name, out="whole", budget=14, **GRID)
    calls, last = 0, 3

    @own_scorer
    def stopping(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == last:
            raise KeyboardInterrupt
        return score(*args, **options)

    with pytest.raises(KeyboardInterrupt):
        study("films", model=small.name, out="stopped", scorer=stopping, budget=14, **GRID)
    assert len(list(Run(Path("stopped")).cells())) == 2
    calls, last = 0, len(list(Run(Path("whole")).cells())) - 2 + 1
    study("films", model=small.name, out="stopped", scorer=stopping, budget=14, **GRID)
    assert bytes_of("stopped") == bytes_of("whole")
    assert without_time("stopped") == without_time("whole")


def test_what_the_folder_holds_is_not_computed(small: Model) -> None:
    """An earlier search of the same budget answers for nothing, and a whole study grows out of one."""

    @own_scorer
    def never(*args: Any, **options: Any) -> Any:
        raise AssertionError

    first = study("films", model=small.name, out="run", budget=14, **GRID)
    again = study("films", model=small.name, out="run", scorer=never, budget=14, **GRID)
    assert again["budget"]["spread"] == pytest.approx(first["budget"]["spread"])
    study("films", model=small.name, out="run", **GRID)
    (kept,) = Path("run", "earlier").glob("*/study.json")
    assert json.loads(kept.read_bytes())["budget"]["calls"] == first["budget"]["calls"]
    with pytest.raises(RunError, match="started with budget_calls = null, not 14; give another --out"):
        study("films", model=small.name, out="run", budget=14, **GRID)


def test_prompts_without_all_their_demonstrations_are_refused(project: Project) -> None:
    """A budget compares all cells, so that none may show fewer demonstrations than its k says."""
    short = saved(random_model(window=128), project.root / "short")
    with pytest.raises(StudyError, match="prompts with k=5 do not fit the window and lost demonstrations"):
        study("films", model=short.name, overlong="drop", budget=30, **{**GRID, "shots": (1, 5), "orders": ("given",)})


def test_minutes_count_what_earlier_runs_took(small: Model) -> None:
    """Time that a stopped search spent is spent: the same command ends where it ended before."""

    @own_scorer
    def never(*args: Any, **options: Any) -> Any:
        raise AssertionError

    first = study("films", model=small.name, out="run", budget="0.0001m", **GRID)
    assert first["budget"]["calls"] == 4 * 2  # the time is over after two records of every cell
    again = study("films", model=small.name, out="run", scorer=never, budget="0.0001m", **GRID)
    assert again["budget"] == first["budget"]
    more = study("films", model=small.name, out="run", budget="60m", **GRID)
    assert more["budget"]["calls"] == more["budget"]["full_calls"]


def test_a_report_of_a_budget_shows_estimates_and_prompts(small: Model) -> None:
    """The page has the estimates, the best and the worst prompt, and no costs of unlike cells."""
    result = study("films", model=small.name, budget=14, **GRID)
    _, found = write_report(result["run"], data="data")
    assert not found["report"]["left_out"]
    page = Path(found["report"]["page"]).read_text()
    assert "14 of the full grid" in page
    assert not any("cost" in name for name in found["report"]["figures"])


def test_a_distance_beyond_the_two_that_are_named_is_explained() -> None:
    """The spread counts that others may be the ends; where it is the distance of the two, nothing is added."""
    ends = Estimate("a", 0.831, 0.01, 20), Estimate("b", 0.824, 0.01, 20)
    found = BudgetedSpread(0.022, Interval(0.0, 0.148), ends, 40, 60)
    assert _explain_distance(found) == (
        " These two lie 0.7 points apart; the 2.2 also count that others may be the best and the worst."
    )
    assert _explain_distance(replace(found, spread=0.831 - 0.824)) == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": 7}, "a budget of 7 calls for 4 conditions; the least is 8"),
        ({"budget": 20, "methods": ("lora",)}, "the method lora trains; leave it out of --methods"),
        ({"budget": 20, "workers": 2}, "one process makes them; leave --workers out"),
        ({"budget": 20, "strategy": "greedy"}, "unknown strategy 'greedy'"),
    ],
)
def test_budgets_that_cannot_work(small: Model, settings: dict[str, Any], message: str) -> None:
    """What is ruled out is said in a line."""
    with pytest.raises(PromptkitError, match=message):
        study("films", model=small.name, **GRID, **settings)
