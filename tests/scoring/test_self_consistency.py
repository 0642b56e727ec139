"""Several samples per prompt through a comparison and the command line: cells, keys, figures, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from promptkit.cli import cli
from promptkit.cli.verbs.row_file import score_file
from promptkit.errors import PromptkitError
from promptkit.experiments.compare import compare
from promptkit.models import Model
from promptkit.scoring import score
from tests.conftest import TEMPLATE, Project, own_scorer
from tests.experiments.test_compare import bytes_of
from tests.helpers.training_fakes import model as random_model
from tests.helpers.training_fakes import saved

COT = TEMPLATE + "{% macro rationale(rationale) %} {{ rationale }}{% endmacro %}\n{% set max_tokens = 6 %}\n"
METHODS = ("zero-shot", "zero-shot-cot", "few-shot-cot")
SMALL: dict[str, Any] = {"limit": 4, "shots": (1,), "draws": 2, "data": "data", "methods": METHODS}
DRAWN = {"samples": 5, "temperature": 1.5}


@pytest.fixture
def small(project: Project) -> Model:
    """A random model, and a chain-of-thought template and rationales for the project's task."""
    project.write("templates/films/cot.jinja", COT)
    task = (project.root / "tasks/films.toml").read_text().replace("[fields]", '[fields]\nrationale = "why"')
    project.write("tasks/films.toml", task)
    for split in ("train", "test"):
        rows = (project.root / f"data/{split}.jsonl").read_text()
        project.write(f"data/{split}.jsonl", rows.replace('"label"', '"why": "it says so", "label"'))
    return saved(random_model(window=256), project.root / "small")


def test_stopped_run_goes_on_to_the_same_bytes(small: Model) -> None:
    """What is drawn depends on nothing but what was run: cells of a resumed run equal those of a whole one."""
    compare("films", model=small.name, out="whole", **SMALL, **DRAWN)
    calls = 0

    @own_scorer
    def stopping(*args: Any, **settings: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return score(*args, **settings)

    with pytest.raises(KeyboardInterrupt):
        compare("films", model=small.name, out="stopped", scorer=stopping, **SMALL, **DRAWN)
    compare("films", model=small.name, out="stopped", **SMALL, **DRAWN)
    assert bytes_of("stopped") == bytes_of("whole")


def test_settings_of_the_draws_are_in_the_keys_of_what_is_drawn(small: Model) -> None:
    """Another number of samples, temperature or seed is another cell, where something is written; else the same."""
    names = {}
    for name, changed in {"greedy": {}, "drawn": DRAWN, "hot": {**DRAWN, "temperature": 2.0}}.items():
        compare("films", model=small.name, out=name, **SMALL, **changed)
        names[name] = {path.name for path in Path(name, "cells").iterdir()}
    assert len(names["greedy"]) == 4
    for left, right in (("greedy", "drawn"), ("drawn", "hot")):
        assert len(names[left] & names[right]) == 1  # zero-shot, whose choices are scored


def test_cells_say_how_the_samples_voted(small: Model) -> None:
    """Every cell that is drawn has its figures, every prediction its samples and votes; methods have the means."""
    result = compare("films", model=small.name, rows=True, **SMALL, **DRAWN)
    plain, *drawn = result["cells"]
    assert "samples" not in plain
    for cell in drawn:
        assert cell["samples"] == 5
        assert 0.2 <= cell["agreement"] <= 1
        assert (cell["unread_samples"], cell["unread"]) == (0, 0)  # choices are always read
        for row in cell["rows"]:
            assert [sample["predicted"] for sample in row["samples"]].count(row["predicted"]) == row["votes"][0][1]
            assert all(len(sample["logprobs"]) == 2 for sample in row["samples"])
    assert [method.get("samples") for method in result["methods"]] == [None, 5, 5]
    assert json.loads(json.dumps(result))


def test_table_shows_votes_ties_and_unread_texts(small: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person reads the share of the winner, ties and what was not read, at 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    words = ["score", "films", "--data", "data", "--model", "small", "--template", "films/cot", "--samples", "3"]
    printed = CliRunner().invoke(cli, [*words, "--top-p", "0.9"]).stdout
    assert "Votes of the texts drawn for each record" in printed
    assert "ties %" in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_rows_of_a_file_are_drawn_too(small: Model, project: Project) -> None:
    """Ready-made rows with something to write get samples, votes and their seed's draws."""
    row = {
        "prompt": "Text:",
        "generation": {"stop": [], "max_tokens": 4, "answer": "(zebra)"},
        "choices": [],
        "label": "x",
    }
    project.write("rows.jsonl", json.dumps(row))
    (cell,) = score_file("rows.jsonl", model="small", samples=3, seed=2)["cells"]
    assert (cell["samples"], cell["unread"], cell["unread_samples"], cell["agreement"]) == (3, 1, 3, 0.0)
    first, second = (
        CliRunner().invoke(cli, ["score", "rows.jsonl", "--model", "small", "--samples", "3", "--seed", s, "--scores"])
        for s in ("2", "3")
    )
    assert json.loads(first.stdout)["samples"] != json.loads(second.stdout)["samples"]


def test_samples_where_nothing_is_written_are_refused(small: Model) -> None:
    """Nothing is silently left alone: no method writes, or no draw is made."""
    with pytest.raises(PromptkitError, match="samples is 5, but nothing is written here"):
        compare("films", model=small.name, **{**SMALL, "methods": ("zero-shot",)}, **DRAWN)
    with pytest.raises(PromptkitError, match="temperature goes with several samples"):
        compare("films", model=small.name, **SMALL, temperature=0.5)
