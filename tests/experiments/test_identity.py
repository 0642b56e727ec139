"""What scores and trains is part of every cell and of the result: answers of one never pass for another's."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from typing import Any

import pytest

from promptkit.data.tasks import load_task
from promptkit.errors import PromptkitError, RunError
from promptkit.experiments.compare import compare
from promptkit.experiments.identity import OWN, Identity
from promptkit.experiments.study import study
from promptkit.models import Model
from promptkit.scoring import score
from promptkit.scoring.predictions import Prediction, Table
from promptkit.training import train
from tests.conftest import Project
from tests.experiments.test_compare import small

__all__ = ["small"]

ASKED: dict[str, Any] = {"methods": ("zero-shot",), "limit": 6, "data": "data"}


def always(label: int) -> Callable[..., Table]:
    """Return a scorer that answers the same to everything; all of them are made of the same source."""

    def scorer(model: Any, prompts: Any, **options: Any) -> Table:
        likely = tuple(-0.1 if place == label else -5.0 for place in range(2))
        return Table(tuple(Prediction(each.id, likely, label, each.label) for each in prompts), flops=1.0)

    return scorer


class Named:
    """A scorer that says what it is."""

    def __init__(self, label: int, identity: Any) -> None:
        self.scorer, self.identity = always(label), identity

    def __call__(self, *given: Any, **options: Any) -> Table:
        return self.scorer(*given, **options)


def answers(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the predictions of the only cell."""
    return list(result["rows"])


@pytest.mark.parametrize("first", ["fake", "own"])
def test_a_fakes_answers_are_never_the_models(small: Model, first: str) -> None:
    """In either order, in the default folder, each gets its own answers, and the result names whose they are."""
    given: dict[str, dict[str, Any]] = {"fake": {"scorer": always(0)}, "own": {}}
    order = [first, *(given.keys() - {first})]
    found = {who: compare("films", model=small.name, rows=True, **ASKED, **given[who]) for who in order}
    clean = compare("films", model=small.name, rows=True, out="clean", **ASKED)
    assert answers(found["own"]) == answers(clean)
    assert {row["predicted"] for row in answers(found["fake"])} == {0}
    assert found["own"]["model"] == small.name
    assert "always.<locals>.scorer (without identity" in found["fake"]["model"]
    assert found["own"]["run"] != found["fake"]["run"]
    assert any("answers are those of" in note for note in found["fake"]["notes"])


@pytest.mark.parametrize("verb", [compare, study])
def test_a_fake_in_the_folder_of_a_model_is_refused(small: Model, verb: Any) -> None:
    """And the other way round: one folder holds the answers of one."""
    given = {"model": small.name, **ASKED}
    for first, second in (({}, {"scorer": always(0)}), ({"scorer": always(0)}, {})):
        out = f"run-{len(first)}"
        verb("films", out=out, **given, **first)
        before = {path: path.read_bytes() for path in Path(out).rglob("*") if path.is_file()}
        with pytest.raises(RunError, match=r"this run was started with .*scorer"):
            verb("films", out=out, **given, **second)
        assert {path: path.read_bytes() for path in Path(out).rglob("*") if path.is_file()} == before


def test_fakes_of_one_source_are_told_apart(small: Model) -> None:
    """Closures over other values, parts of one function and bound methods never share a cell."""
    scorers = [always(0), always(1), partial(always(0)), partial(always(1)), Named(0, None), Named(1, None)]
    runs = [study("films", model=small.name, scorer=scorer, **ASKED) for scorer in scorers]
    assert len({run["run"] for run in runs}) == len(scorers)
    assert [run["cells"][0]["factors"]["model"] for run in runs] == [run["model"] for run in runs]
    wrapped = wraps(score)(always(1))
    assert Identity.of(wrapped, None).scorer


def test_an_identity_names_the_result_and_resumes(small: Model) -> None:
    """A named fake finds its cells again, under another name none of them."""
    first = compare("films", model=small.name, scorer=Named(0, "always 0"), rows=True, **ASKED)
    again = compare("films", model=small.name, scorer=Named(1, "always 0"), rows=True, **ASKED)
    assert again == first
    assert first["model"] == "always 0"
    assert json.loads((Path(first["run"]) / "run.json").read_text())["settings"]["scorer"] == "always 0"
    other = compare("films", model=small.name, scorer=Named(1, "always 1"), rows=True, **ASKED)
    assert other["run"] != first["run"]
    assert {row["predicted"] for row in answers(other)} == {1}


def test_models_of_a_study_are_told_apart_though_one_scores_them(small: Model, project: Project) -> None:
    """The axis of models keeps their names beside the scorer's."""
    found = study("films", models=(small.name, "tiny"), scorer=Named(0, "always 0"), **ASKED)
    assert found["models"] == [f"always 0 on {small.name}", "always 0 on tiny"]


@pytest.mark.parametrize("said", ["", "  ", 3, ["x"]])
def test_an_identity_is_a_text(small: Model, said: Any) -> None:
    """Anything else is an error before anything is computed."""
    with pytest.raises(PromptkitError, match=r"the scorer's `identity` is .*; give a text"):
        compare("films", model=small.name, scorer=Named(0, said), **ASKED)
    assert not Path("runs").exists()


def test_a_trainers_adapters_are_its_own(small: Model) -> None:
    """What another trainer made is trained again, and the result says who trained."""
    rates: list[Any] = []

    def trainer(*given: Any, **options: Any) -> Any:
        rates.append(options["learning_rate"])
        return train(*given, **{**options, "learning_rate": 1e-9})

    asked = {"methods": ("lora",), "shots": (1,), "seeds": 1, "epochs": 1, "rank": 2, "limit": 4, "data": "data"}
    faked = compare("films", model=small.name, trainer=trainer, **asked)
    real = compare("films", model=small.name, **asked)
    assert len(rates) == 2
    assert faked["run"] != real["run"]
    assert faked["model"] == small.name
    assert any("adapters are trained by" in note for note in faked["notes"])


def test_models_without_a_fingerprint_are_told_apart(small: Model) -> None:
    """Of two networks that were not read from files, none finds the other's cells."""
    bare = [replace(small, hash=""), replace(small, hash="")]
    runs = [compare("films", model=model, **ASKED)["run"] for model in (*bare, bare[0])]
    assert runs[0] == runs[2] != runs[1]


def test_a_task_that_was_changed_in_python_is_another(small: Model) -> None:
    """The file is the same, and what is asked is not."""
    task = load_task("films")
    changed = task.model_copy(update={"labels": ("bad", "good")})
    asked = {**ASKED, "model": small.name, "rows": True}
    assert answers(compare(task, **asked)) != answers(compare(changed, **asked))
    assert study(task, model=small.name, **ASKED)["run"] != study(changed, model=small.name, **ASKED)["run"]


def test_workers_score_with_promptkits_own(small: Model) -> None:
    """Other processes cannot be handed a function: that is refused and not passed over."""
    with pytest.raises(PromptkitError, match="several workers score and train with promptkit's own"):
        study("films", model=small.name, scorer=always(0), workers=2, **ASKED)


def test_promptkits_own_may_be_named() -> None:
    """What gives the same answers may say so, and is the model then."""
    assert Identity.of(score, train) == Identity.of(None, None) == Identity()
    assert Identity.of(Named(0, OWN["scorer"]), None) == Identity()
