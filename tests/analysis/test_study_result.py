"""What a study's cells tell together: tests, leanings, ranks, and that they are the statistics of the same answers."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from promptkit.analysis.forms import Form
from promptkit.analysis.sentences import describe_agreement, describe_best, describe_leaning
from promptkit.data.tasks import load_task
from promptkit.experiments.study import study
from promptkit.models import Model
from promptkit.report.numbers import gather_items
from promptkit.report.plots import make_plots
from promptkit.report.run_source import load_source, name_conditions
from promptkit.scoring import score
from promptkit.stats import mcnemar
from tests.conftest import Project
from tests.experiments.test_compare import bytes_of, small
from tests.helpers.training_fakes import model as random_model
from tests.helpers.training_fakes import saved

__all__ = ["small"]  # a fixture

GRID: dict[str, Any] = {"limit": 6, "shots": (2,), "draws": 2, "orders": ("all",), "data": "data"}


def answers(run: str) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
    """Return the rows of the Parquet file by (labels, draw, order)."""
    pandas = pytest.importorskip("pandas")
    table = pandas.read_parquet(Path(run) / "predictions.parquet")
    return {key: rows.to_dict("records") for key, rows in table.groupby(["labels", "draw", "order"], sort=False)}


def test_cells_of_one_condition_are_tested_against_the_best(small: Model) -> None:
    """Every other cell has its lead, McNemar's test and Holm's correction for all of them."""
    result = study("films", model=small.name, **GRID)
    best, cells = result["best"], answers(result["run"])
    right = {key[1:]: [int(row["right"]) for row in rows] for key, rows in cells.items()}
    name = best["best"]["draw"], best["best"]["order"]
    assert best["of"] == "cells"
    assert sum(right[name]) == max(map(sum, right.values()))
    assert len(best["rows"]) == 3
    for row in best["rows"]:
        other = right[row["factors"]["draw"], row["factors"]["order"]]
        assert row["lead"] == pytest.approx((sum(right[name]) - sum(other)) / 6)
        assert row["p_value"] == mcnemar(right[name], other).p_value
        assert row["p_value"] <= row["adjusted"] <= 1


def test_conditions_are_compared_where_there_are_several(small: Model) -> None:
    """With two sets of label words, the worse one is a row, and its intervals are about means over draws."""
    result = study("films", model=small.name, labels=("own", "zip,nop"), **GRID)
    best, means = result["best"], [method["accuracy"]["mean"] for method in result["methods"]]
    assert best["of"] == "conditions"
    assert [row["lead"] for row in best["rows"]] == [pytest.approx(max(means) - min(means))]
    assert result["quantiles"]["0.5"] <= max(means)


def test_labels_and_repeats_are_counted(small: Model) -> None:
    """Shares of labels are those of the predictions, and repeats those of the labels that stand in the prompts."""
    asked: list[tuple[list[str], str]] = []

    def noting(model: Model, prompts: Any, **options: Any) -> Any:
        table = score(model, prompts, **options)
        for prompt, row in zip(prompts, table.predictions, strict=True):
            asked.append((re.findall(r"Sentiment: (\w+)", prompt.text), ("negative", "positive")[row.predicted]))
        return table

    (method,) = study("films", model=small.name, scorer=noting, **{**GRID, "shots": (3,)})["methods"]
    for share in method["leans"]:
        name = ("negative", "positive")[share["label"]]
        assert share["predicted"] == pytest.approx(fmean(answer == name for _, answer in asked))
    any_, last, second, first = method["repeats"]
    assert (any_["from_end"], last["from_end"], second["from_end"], first["from_end"]) == (None, 1, 2, 3)
    assert any_["rate"] == pytest.approx(fmean(answer in shown for shown, answer in asked))
    for place, repeat in ((-1, last), (-2, second), (-3, first)):
        assert repeat["rate"] == pytest.approx(fmean(answer == shown[place] for shown, answer in asked))


def test_two_models_are_ranked_over_what_both_were_asked(project: Project, small: Model) -> None:
    """Of a single condition, cells are the prompts that are ranked."""
    other = saved(random_model(window=256, seed=2), project.root / "other")
    result = study("films", models=(small.name, other.name), **GRID)
    (ranks,) = result["agreement"]
    assert (ranks["kind"], ranks["conditions"]) == ("model", 4)
    assert -1 <= ranks["spearman"] <= 1
    assert [cell["model"] for cell in result["cells"]] == [small.name] * 4 + [other.name] * 4


def test_two_scores_are_ranked_over_the_same_cells(small: Model) -> None:
    """Calibrated and plain answers of the same cells agree with themselves at least as ranks go."""
    result = study("films", model=small.name, calibrate=("batch",), **GRID)
    (ranks,) = result["agreement"]
    assert (ranks["first"], ranks["second"], ranks["conditions"]) == ("sum", "batch", 4)


def test_sentences_say_what_is_sure() -> None:
    """Told apart, not told apart, and what it would take; leanings only where they are large."""
    row = {"factors": {"k": "2"}, "lead": 0.05, "adjusted": 0.4, "items_needed": 900}
    best = {"of": "conditions", "best": {"k": "4"}, "items": 200, "resolved": 0.065, "rows": [row]}
    assert describe_best(best) == [
        "Best of 2 conditions is k 4: on these 200 items it is not told apart from the only other "
        "(paired tests, Holm's correction, 5 %). Nearest behind it: 5.0 points; a lead of 5.0 points over such a one "
        "takes about 900 items. With 200 items leads of 6.5 points are found as a rule."
    ]
    sure = describe_best({**best, "rows": [{**row, "adjusted": 0.01}]})
    assert "it is told apart from the only other (paired" in sure[0]
    three = describe_best({**best, "rows": [row, {**row, "adjusted": 0.01}]})
    assert "it is told apart from 1 of the 2 others (paired" in three[0]
    assert "Nearest" not in sure[0]
    assert describe_best(None) == []
    equal = describe_best({**best, "rows": [{**row, "lead": 0.0}]})
    assert equal == ["All 2 conditions are right equally often on these 200 items: none is best."]
    methods = [{"factors": {"k": "2"}, "leans": [{"label": 1, "predicted": 0.9, "true": 0.5}], "repeats": []}]
    assert describe_leaning(load_task("reviews"), methods) == [
        "The model leans to 'positive': 90 % of its answers, and right for 50 %."
    ]
    methods[0]["leans"] = [{"label": 1, "predicted": 0.55, "true": 0.5}]
    assert describe_leaning(load_task("reviews"), methods) == []
    ranks = {"kind": "model", "first": "a", "second": "b", "conditions": 24, "spearman": 0.05}
    ranks |= {"spearman_ci95": [-0.3, 0.4], "reversal": 0.141, "reversal_gap": 0.02}
    assert describe_agreement([ranks])[0].startswith("a and b rank 24 prompts with a correlation of 0.05 [-0.30, 0.40]")


def test_conditions_without_all_their_demonstrations_are_compared_with_nothing(project: Project) -> None:
    """What lost demonstrations to the window is listed with what it shows, and is in no test, share or level."""
    short = saved(random_model(window=180), project.root / "short")
    asked = {**GRID, "shots": (1, 2, 5), "draws": 2, "orders": ("given",), "overlong": "drop"}
    form = Form(title="by k", rows=("k",), figures=("mean",))
    result = study("films", model=short.name, forms=(form,), **asked)
    one, two, five = result["methods"]
    assert "shown" not in one | two
    kept = [5 - cell["dropped"] / cell["n"] for cell in result["cells"] if cell["k"] == 5]
    assert five["shown"] == pytest.approx(fmean(kept))
    best = result["best"]
    assert {best["best"]["k"], *(row["factors"]["k"] for row in best["rows"])} == {"1", "2"}
    assert [level["value"] for level in result["levels"]["k"]] == ["1", "2"]
    assert [row[0] for row in result["forms"][0]["rows"]] == ["1", "2", "5 (fewer shown)"]
    (note,) = [note for note in result["notes"] if "left out" in note]
    assert note.startswith("few-shot k=5: prompts show fewer demonstrations than k")
    source = load_source(Path(result["run"]))
    assert list(name_conditions(source.result).values())[2] == f"few-shot k=5 ({five['shown']:.1f} shown)"
    shots = next(plot for plot in make_plots(source, gather_items(source)) if plot.name == "shots")
    assert "k=2" in shots.description
    assert "k=5" not in shots.description
    alone = study("films", model=short.name, out="alone", **{**asked, "shots": (5,)})
    assert (alone["best"], alone["factors"], alone["levels"]) == (None, [], {})


def test_predictions_can_be_read_with_duckdb(small: Model) -> None:
    """The query on the page gives every draw's accuracy."""
    duckdb = pytest.importorskip("duckdb")
    result = study("films", model=small.name, **GRID)
    path = Path(result["run"]) / "predictions.parquet"
    found = dict(duckdb.sql(f"select draw, avg(\"right\"::int) from '{path}' group by draw").fetchall())
    for draw, accuracy in found.items():
        own = [cell["accuracy"] for cell in result["cells"] if cell["factors"]["draw"] == draw]
        assert accuracy == pytest.approx(sum(own) / len(own))


def test_a_killed_study_goes_on_to_the_same_bytes(project: Project, small: Model) -> None:
    """A process that is killed without notice leaves whole cells or none, and the next one adds the rest."""
    settings = {**GRID, "draws": 4, "labels": ("own", "zip,nop", "up,down")}
    study("films", model=small.name, out="whole", **settings)
    code = f"import promptkit; promptkit.study('films', model={small.name!r}, out='killed', **{settings!r})"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=project.root)
    cells = project.root / "killed" / "cells"
    while process.poll() is None and len(list(cells.glob("*.json"))) < 2:
        time.sleep(0.005)
    process.kill()  # SIGKILL, where there are signals
    process.wait()
    left = bytes_of("killed")
    assert 1 < len(left) < len(bytes_of("whole"))
    study("films", model=small.name, out="killed", **settings)
    assert bytes_of("killed") == bytes_of("whole")
    tables = [(Path(folder) / "predictions.parquet").read_bytes() for folder in ("killed", "whole")]
    assert tables[0] == tables[1]


def test_workers_batches_and_subsets_change_nothing(small: Model) -> None:
    """One or three processes fill a folder with the same bytes; batches and fewer records leave every score."""
    study("films", model=small.name, out="one", **GRID)
    study("films", model=small.name, out="by-three", workers=3, **GRID)
    assert bytes_of("by-three") == bytes_of("one")
    whole = answers("one")
    study("films", model=small.name, out="small-batches", batch_tokens=60, **GRID)
    study("films", model=small.name, out="fewer", **{**GRID, "limit": 3})
    for folder, count in (("small-batches", 6), ("fewer", 3)):
        for key, rows in answers(folder).items():
            known = {row["id"]: row for row in whole[key]}
            assert len(rows) == count
            for row in rows:
                assert list(row["logprobs"]) == pytest.approx(list(known[row["id"]]["logprobs"]), abs=1e-4)
                assert row["predicted"] == known[row["id"]]["predicted"]
