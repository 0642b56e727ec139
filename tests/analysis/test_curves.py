"""Curves against labelled rows: what is planned, what a point says, and that a known crossing is found."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from promptkit.analysis.cells import FinishedCell, PlannedCell
from promptkit.analysis.comparison_result import describe_method
from promptkit.analysis.crossing import SizeComparison, compare_sizes, find_changes, find_start
from promptkit.costs.flops import Cost
from promptkit.data.record import EMPTY_QUERY, Record, hash_records
from promptkit.data.splits import Splits, load_splits
from promptkit.data.tasks import load_task
from promptkit.demonstrations import SELECTIONS, Draw, Selector, goes_by_query
from promptkit.errors import PromptkitError, SelectionError, WindowError
from promptkit.experiments.compare import compare
from promptkit.experiments.plan import CompareSettings
from promptkit.models import Model
from promptkit.report.curve_table import describe_crossings
from promptkit.report.findings import describe_failed
from promptkit.scoring import score
from promptkit.scoring.condition import Condition
from promptkit.templating.template import load_template
from tests.conftest import Project, own_scorer
from tests.helpers.curve_fakes import ITEMS, SIZES, noting_trainer, skilled_scorer, write_records
from tests.helpers.training_fakes import model as random_model
from tests.helpers.training_fakes import saved

SMALL: dict[str, Any] = {
    "limit": ITEMS,
    "shots": (0, 4),
    "draws": 4,
    "seeds": 2,
    "rank": 2,
    "data": "data",
    "train_sizes": SIZES,
    "train_limit": 64,
    "trainer": noting_trainer,
}
#: LoRA's share of right answers on so many rows: worse than a prompt with 0.75 at first, better in the end.
RISING = {8: 0.52, 16: 0.58, 32: 0.90, 64: 0.95}


@pytest.fixture
def small(project: Project) -> Model:
    """A random model, saved as a folder of the project, and records for every size."""
    write_records(project)
    return saved(random_model(window=256), project.root / "small")


@pytest.fixture(scope="module")
def rising(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The comparison in which LoRA is as good as `RISING` says; one of its runs on 8 rows fails."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("rising"))
        project = Project(Path.cwd())
        write_records(project)
        model = saved(random_model(window=256), project.root / "small")
        result = compare("films", model=model.name, scorer=skilled_scorer(skill), **SMALL)
        result["records"] = splits_of("films").pool
        result["pool"] = [hash_records(result["records"][:size]) for size in SIZES]
        return result


def splits_of(task: str) -> Splits:
    """Return the records that every comparison here has."""
    return load_splits(load_task(task), data="data", limit=ITEMS, train_limit=64)


def skill(method: str, rows: int, seed: int) -> float:
    """Say how good each way is: few-shot always the same, zero-shot poor, LoRA by its rows."""
    if method == "lora":
        return 0.2 if (rows, seed) == (8, 1) else RISING[rows] + 0.01 * seed
    return 0.75 if method == "few-shot" else 0.55


def runs_of(shares: Sequence[float]) -> list[FinishedCell]:
    """Return runs that are right on the first so many hundredths of 100 items each."""
    bound = load_template("films/plain").bind(load_task("films"))
    return [
        FinishedCell(
            PlannedCell(Condition("lora", bound), rows=(EMPTY_QUERY,), seed=seed),
            {
                "predictions": [
                    {"label": 1, "predicted": int(item < 100 * share), "logprobs": [-1.0, -1.0]} for item in range(100)
                ]
            },
            Cost(),
        )
        for seed, share in enumerate(shares)
    ]


def contest(trained: dict[int, Sequence[float]], prompted: float) -> dict[str, Any]:
    """Return LoRA with these shares of right answers on so many rows against one prompt."""
    prompt = runs_of([prompted])
    name = {"method": "few-shot", "k": 4, "template": "films/plain", "train_rows": None}
    found = compare_sizes([SizeComparison(rows, runs_of(shares), prompt, name) for rows, shares in trained.items()])
    return {"against": "prompting", "template": "films/plain", **found}


def test_a_known_crossing_is_found(rising: dict[str, Any]) -> None:
    """LoRA is behind up to 16 rows and ahead from 32 on: the report says so, and how sure it is of the place."""
    crossings = rising["curves"]["crossings"]
    assert [each["against"] for each in crossings] == ["prompting", "retrieved"]  # the best prompt is the shared one
    found = crossings[0]
    assert [size["ahead"] for size in found["sizes"]] == ["prompt", "prompt", "lora", "lora"]
    assert found["changes"] == [{"between": [16, 32], "to": "lora"}]
    assert found["leads"]["who"] == "lora"
    low, high = found["leads"]["ci95"]
    assert 16 < low <= found["leads"]["rows"] <= high < 32
    said = describe_crossings(crossings)
    assert said[0].startswith("LoRA passes the best prompt between 16 and 32 labelled rows. By the means LoRA leads")
    for size in found["sizes"]:
        assert size["ci95"][0] <= size["difference"] <= size["ci95"][1]
        assert size["adjusted"] >= size["p_value"]


def test_a_crossing_the_other_way_is_found(project: Project) -> None:
    """Where LoRA gets worse with more rows, prompting passes it, and the report says that just as well."""
    found = contest({8: (0.95, 0.96), 16: (0.90, 0.91), 32: (0.55, 0.56), 64: (0.5, 0.5)}, 0.75)
    assert found["changes"] == [{"between": [16, 32], "to": "prompt"}]
    assert found["leads"]["who"] == "prompt"
    assert describe_crossings([found])[0].startswith("The best prompt passes LoRA between 16 and 32 labelled rows.")


def test_what_stays_ahead_is_said(project: Project) -> None:
    """Without a crossing the report says who stays ahead, prompting as well as LoRA."""
    found = contest({8: (0.45,), 16: (0.46,), 32: (0.5,)}, 0.75)
    assert found["changes"] == []
    assert found["leads"] == {"who": "prompt", "rows": None, "ci95": [None, None]}
    assert describe_crossings([found])[0] == "The best prompt stays ahead of LoRA at every size."
    assert describe_crossings([contest({8: (0.9,), 16: (0.95,)}, 0.7)])[0].startswith("LoRA stays ahead of the best")


def test_equal_ways_are_too_close_to_call(project: Project) -> None:
    """Nobody is ahead where the difference is noise, and no crossing is claimed."""
    found = contest({8: (0.74,), 16: (0.75,), 32: (0.77,)}, 0.75)
    assert [size["ahead"] for size in found["sizes"]] == [None] * 3
    assert describe_crossings([found])[0].startswith(
        "Between LoRA and the best prompt it is too close to call at 8, 16 and 32 rows."
    )


def test_an_open_size_lies_within_the_crossing(project: Project) -> None:
    """Where one size between is undecided, the crossing is said to lie around it."""
    found = contest({8: (0.4,), 16: (0.76,), 32: (0.95,)}, 0.75)
    assert found["changes"] == [{"between": [8, 32], "to": "lora"}]
    assert "between 8 and 32 labelled rows. At 16 rows it is too close to call." in describe_crossings([found])[0]


def test_seeds_that_differ_widen_the_interval(project: Project) -> None:
    """Two seeds far apart say less than two alike with the same mean."""
    apart, alike = (contest({8: shares}, 0.5)["sizes"][0] for shares in ((0.4, 1.0), (0.7, 0.7)))
    assert apart["difference"] == pytest.approx(alike["difference"])
    assert apart["ci95"][1] - apart["ci95"][0] > 1.5 * (alike["ci95"][1] - alike["ci95"][0])
    assert (apart["ahead"], alike["ahead"]) == (None, "lora")


def test_runs_that_never_differ_leave_a_width(project: Project) -> None:
    """Equal answers on 100 records are no proof of equal answers on others."""
    size = contest({8: (0.5, 0.5)}, 0.5)["sizes"][0]
    assert (size["difference"], size["ahead"]) == (0, None)
    assert size["ci95"] == [pytest.approx(-0.037, abs=1e-3), pytest.approx(0.037, abs=1e-3)]


def test_orders_of_one_choice_are_resampled_together(project: Project) -> None:
    """Sixteen orders of two choices know as little of other choices as two draws: the table's interval is as wide."""
    bound, task = load_template("films/plain").bind(load_task("films")), load_task("films")

    def shown(choices: int, orders: int) -> list[float]:
        shares = [0.5 + 0.3 * (choice % 2) for choice in range(choices) for _ in range(orders)]
        nothing = dict.fromkeys(("spanning", "unfinished", "dropped"), 0)
        results = [{**run.result, **nothing} for run in runs_of(shares)]
        draws = [Draw(seed=choice, order=order) for choice in range(choices) for order in range(orders)]
        cells = [
            FinishedCell(PlannedCell(Condition("few-shot", bound, 4, draw)), result, Cost())
            for draw, result in zip(draws, results, strict=True)
        ]
        accuracy, f1 = (describe_method(task, cells)[name] for name in ("accuracy", "macro_f1"))
        return [ends[1] - ends[0] for ends in (accuracy["ci95"], f1["ci95"])]

    assert shown(2, 8) == pytest.approx(shown(2, 1), rel=0.05)
    assert all(few > 1.5 * many for few, many in zip(shown(2, 8), shown(16, 1), strict=True))


def test_a_smaller_set_to_retrieve_from_competes_too(rising: dict[str, Any]) -> None:
    """A prompt needs no more rows where it retrieves from fewer: the best of all that do is what LoRA must beat."""
    sizes = next(each for each in rising["curves"]["crossings"] if each["against"] == "retrieved")["sizes"]
    points = next(line for line in rising["curves"]["lines"] if line["kind"] == "retrieved")["points"]
    means = {point["rows"]: point["accuracy"]["mean"] for point in points}
    for size in sizes:
        assert size["accuracy"]["prompt"] == max(mean for rows, mean in means.items() if rows <= size["rows"])


def test_every_point_names_its_rows_and_seeds(rising: dict[str, Any]) -> None:
    """A point says how many labelled rows it needed and which, its draws or seeds, and what each run reached."""
    lines = {line["name"]: line["points"] for line in rising["curves"]["lines"]}
    nobody = Record(id="", fields={}, label=None)
    assert list(lines) == ["zero-shot", "few-shot", "few-shot k=4 bm25", "lora"]
    assert [point["rows"] for point in lines["lora"]] == list(SIZES) == rising["curves"]["sizes"]
    assert [point["rows"] for point in lines["few-shot k=4 bm25"]] == list(SIZES)
    assert [point["rows"] for point in lines["few-shot"]] == [4]
    assert [point["rows"] for point in lines["zero-shot"]] == [0]
    for name in ("lora", "few-shot k=4 bm25"):
        assert [point["rows_hash"] for point in lines[name]] == rising["pool"]
    assert all(point["seeds"] == [0, 1] and len(point["accuracies"]) == 2 for point in lines["lora"])
    draws = lines["few-shot"][0]["draws"]
    assert [draw["seed"] for draw in draws] == [0, 0, 1, 1]
    shown = [hash_records(Selector(rising["records"], seed=draw["seed"]).select(nobody, 4)) for draw in draws]
    assert [draw["rows_hash"] for draw in draws] == shown
    assert len(set(shown)) == 2
    json.dumps(rising["curves"], allow_nan=False)


def test_costs_hold_training_and_what_is_shared(rising: dict[str, Any]) -> None:
    """1,000 items cost most where demonstrations are recomputed; LoRA's cost is its training and short prompts."""
    lines = {line["name"]: [point["cost"] for point in line["points"]] for line in rising["curves"]["lines"]}
    (shared,), (zero,) = lines["few-shot"], lines["zero-shot"]
    assert zero["per_1000_shared"] < shared["per_1000_shared"] < shared["per_1000_recomputed"] / 2
    for cost in lines["lora"]:
        assert cost["training"] > 0
        assert cost["per_1000_shared"] == pytest.approx(cost["training"] + zero["per_1000_shared"])
    for cost in lines["few-shot k=4 bm25"]:  # only what stands before the demonstrations is shared
        assert cost["per_1000_recomputed"] > cost["per_1000_shared"] > 2 * shared["per_1000_shared"]


def test_failed_runs_are_counted(rising: dict[str, Any]) -> None:
    """A run that is right no more often than the most frequent label is counted beside the mean, and said."""
    failed = {method["train_rows"]: method["failed"] for method in rising["methods"] if method["train_rows"]}
    assert failed == {8: 1, 16: 0, 32: 0, 64: 0}
    (line,) = [line for line in rising["curves"]["lines"] if line["kind"] == "trained"]
    assert [point["failed"] for point in line["points"]] == [1, 0, 0, 0]
    assert describe_failed(rising) == ["At or below the most frequent label: 1 of 2 runs of lora 8 rows."]


def test_demonstrations_are_retrieved_from_the_first_rows_only(small: Model) -> None:
    """For a size of 8 every demonstration is one of the pool's first 8, and queries have different ones."""
    seen: list[list[tuple[str, ...]]] = []

    def noting(model: Model, prompts: Any, **options: Any) -> Any:
        seen.append([prompt.demonstration_ids for prompt in prompts])
        return skilled_scorer(skill)(model, prompts, **options)

    settings = {**SMALL, "methods": ("few-shot",), "draws": 1, "shots": (4,), "train_sizes": (8, 64)}
    compare("films", model=small.name, scorer=noting, **settings)
    pool = splits_of("films").pool
    first = {record.id for record in pool[:8]}
    _drawn, few, many = seen
    assert {name for ids in few for name in ids} <= first
    assert len(set(few)) > 1
    assert not {name for ids in many for name in ids} <= first


def test_sizes_are_those_of_every_line_and_none_twice(small: Model) -> None:
    """A size given twice is run once; without LoRA the sizes are those that are retrieved from."""
    settings = {**SMALL, "train_sizes": (16, 16, 8), "draws": 1, "scorer": skilled_scorer(skill)}
    retrieved = compare("films", model=small.name, **{**settings, "methods": ("few-shot",)})
    assert retrieved["curves"]["sizes"] == [8, 16]
    trained = compare("films", model=small.name, **{**settings, "methods": ("lora",)})
    assert [(method["train_rows"], method["runs"]) for method in trained["methods"]] == [(8, 2), (16, 2)]


def test_records_that_a_model_chose_are_named(small: Model) -> None:
    """A draw whose demonstrations a model chose names them too."""
    settings = {**SMALL, "train_sizes": (8,), "shots": (2,), "draws": 1, "retrieval": "none", "limit": 4}
    found = compare("films", model=small.name, methods=("few-shot",), selection="entropy", **settings)
    (point,) = found["curves"]["lines"][0]["points"]
    assert len(point["draws"][0]["rows_hash"]) == 64


def test_a_selection_by_the_query_retrieves(small: Model) -> None:
    """With `selection` tfidf the growing sets are searched by it, and nothing is drawn for all queries alike."""
    settings = {**SMALL, "methods": ("few-shot",), "selection": "tfidf", "scorer": skilled_scorer(skill)}
    methods = compare("films", model=small.name, **settings)["methods"]
    kinds = [(method["method"], method.get("retrieval"), method.get("pool_rows")) for method in methods]
    assert kinds == [("zero-shot", None, None), *[("few-shot", "tfidf", size) for size in SIZES]]


def test_nothing_is_retrieved_where_that_is_asked_or_no_curve_is(small: Model) -> None:
    """`none` leaves retrieved demonstrations out; without sizes a comparison is what it was."""
    settings = {**SMALL, "methods": ("few-shot", "zero-shot"), "scorer": skilled_scorer(skill)}
    for change in ({"retrieval": "none"}, {"train_sizes": ()}):
        result = compare("films", model=small.name, **{**settings, **change})
        assert [(method["method"], method["k"]) for method in result["methods"]] == [("zero-shot", 0), ("few-shot", 4)]
    assert "curves" not in result


def test_zero_shots_are_zero_shot(small: Model) -> None:
    """0 among the shots adds zero-shot; 0 alone leaves few-shot out."""
    settings = {**SMALL, "methods": ("few-shot",), "train_sizes": (), "scorer": skilled_scorer(skill)}
    both = compare("films", model=small.name, **settings)["methods"]
    assert [method["method"] for method in both] == ["zero-shot", "few-shot"]
    none = compare("films", model=small.name, **{**settings, "shots": (0,)})["methods"]
    assert [method["method"] for method in none] == ["zero-shot"]


def test_shots_beyond_the_window_are_left_out_and_said(project: Project) -> None:
    """A number of demonstrations that does not fit is no point of the curve; it can be refused or dropped instead."""
    write_records(project)
    short = saved(random_model(window=160), project.root / "short")
    settings = {**SMALL, "methods": ("few-shot",), "shots": (1, 6), "train_sizes": (8,), "limit": 4, "draws": 2}
    settings["scorer"] = skilled_scorer(skill)
    result = compare("films", model=short.name, out="run", **settings)
    assert {method["k"] for method in result["methods"]} == {1}
    notes = [note for note in result["notes"] if "left out" in note]
    assert [note.split(":")[0] for note in notes] == ["few-shot k=6 is left out", "few-shot k=6 of 8 rows is left out"]
    assert all("do not fit the window of 160 tokens" in note and "--overlong drop" in note for note in notes)
    assert compare("films", model=short.name, out="run", **settings) == result
    assert json.loads(Path("run/run.json").read_text())["settings"]["overlong"] == "skip"
    with pytest.raises(WindowError, match="with k=6 demonstrations do not fit"):
        compare("films", model=short.name, overlong="error", **settings)
    dropped = compare("films", model=short.name, overlong="drop", **settings)
    points = [point for line in dropped["curves"]["lines"] for point in line["points"] if point["k"] == 6]
    assert points
    assert all(point["dropped"] > 0 for point in points)


def test_points_without_all_their_demonstrations_compete_with_nothing(project: Project) -> None:
    """What lost demonstrations to the window is drawn, but is neither the best prompt nor ahead of training."""
    write_records(project)
    short = saved(random_model(window=160), project.root / "short")
    scorer = skilled_scorer(lambda method, rows, seed: 0.9 if rows in (2, 3, 4, 5) else 0.6)
    settings = {**SMALL, "shots": (1, 6), "train_sizes": (8,), "limit": 10, "draws": 2}
    result = compare("films", model=short.name, overlong="drop", scorer=scorer, **settings)
    points = [point for line in result["curves"]["lines"] for point in line["points"] if line["kind"] != "trained"]
    assert {point["k"] for point in points if point["dropped"]} == {6}
    against = [size["prompt"] for crossing in result["curves"]["crossings"] for size in crossing["sizes"]]
    assert against
    assert 6 not in {prompt["k"] for prompt in against}
    assert result["paired"]["prompt"]["k"] != 6


def test_a_stopped_curve_goes_on_to_the_same_bytes(small: Model) -> None:
    """Stopped among the retrieved demonstrations and started again, a run ends with the cells of one that was not."""
    settings = {**SMALL, "methods": ("few-shot",), "limit": 4, "draws": 1, "train_sizes": (8, 16), "shots": (2,)}
    compare("films", model=small.name, out="whole", **settings)
    calls = 0

    @own_scorer
    def stopping(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return score(*args, **options)

    with pytest.raises(KeyboardInterrupt):
        compare("films", model=small.name, out="stopped", scorer=stopping, **settings)
    compare("films", model=small.name, out="stopped", **settings)
    cells = [{path.name: path.read_bytes() for path in Path(out, "cells").iterdir()} for out in ("whole", "stopped")]
    assert cells[0] == cells[1]
    assert len(cells[0]) == 3


def test_settings_of_curves_are_checked(small: Model) -> None:
    """What cannot retrieve, retrieving from nothing and an unknown rule for the window are one clear line each."""
    with pytest.raises(SelectionError, match="retrieval 'balanced' chooses the same demonstrations for every query"):
        CompareSettings(train_sizes=(8,), retrieval="balanced")
    with pytest.raises(SelectionError, match=r"retrieval is 'bm25', but there are no train sizes .*; give --train"):
        CompareSettings(retrieval="bm25")
    with pytest.raises(PromptkitError, match="overlong is 'cut'; known: error, drop, skip"):
        CompareSettings(overlong="cut")
    with pytest.raises(SelectionError, match="shots are \\[-1\\]; each must be 0"):
        CompareSettings(shots=(-1,))


def test_selections_by_the_query_are_those_that_rank_for_each(small: Model) -> None:
    """What is said to go by the query is what gives different queries different demonstrations."""
    pool = splits_of("films").pool
    for name in set(SELECTIONS) - {"pinned", "mdl", "entropy"}:
        if "dense" not in name:
            assert callable(Selector(pool, name)._ranked) == goes_by_query(name), name
    assert [goes_by_query(name) for name in ("mdl:4", "dense", "vote-k-dense")] == [True, True, False]


def test_where_a_lead_begins_is_read_off_the_line() -> None:
    """It is interpolated over the logarithm of rows, after the last size at which the other was ahead."""
    assert find_start([10, 1000], [-1.0, 1.0]) == pytest.approx(100)
    assert find_start([10, 100, 1000], [1.0, -1.0, 3.0]) == pytest.approx(10**2.25)
    assert find_start([10, 100], [1.0, 2.0]) == -math.inf
    assert find_start([10, 100], [1.0, -2.0]) == math.inf


def test_changes_pass_over_what_is_open() -> None:
    """A change lies between the last size of the one and the first of the other, open sizes in between."""
    ahead = {1: "prompt", 2: None, 4: "lora", 8: "prompt"}
    sizes = [{"rows": rows, "ahead": who} for rows, who in ahead.items()]
    assert find_changes(sizes) == [{"between": [1, 4], "to": "lora"}, {"between": [4, 8], "to": "prompt"}]
    assert find_changes(sizes[1:3]) == []
