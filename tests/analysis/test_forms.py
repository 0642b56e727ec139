"""The forms of papers: what a preset's tables may say, and the figures that then stand there."""

from __future__ import annotations

from statistics import fmean, stdev
from typing import Any

import pytest

from promptkit.analysis.forms import Form
from promptkit.errors import PromptkitError
from promptkit.experiments.grid import find_presets, load_settings
from promptkit.experiments.study import study
from promptkit.models import Model
from tests.conftest import SENTENCES, Project
from tests.experiments.test_compare import small

__all__ = ["small"]  # a fixture

GRID: dict[str, Any] = {"limit": 6, "draws": 2, "orders": ("given",), "data": "data"}


def test_every_preset_has_a_form() -> None:
    """Each paper's preset says how the paper shows its result."""
    for name in find_presets():
        assert load_settings(name).forms, name


def test_a_form_groups_cells_by_its_axes(small: Model) -> None:
    """Rows and columns are the values of its axes; a cell stands in the group that it agrees with."""
    form = Form(title="By k", rows=("template", "k"), columns=("score",), figures=("mean ± std", "spread", "runs"))
    settings = {"methods": ("zero-shot", "few-shot"), "shots": (1, 2), "calibrate": ("contextual",), "forms": (form,)}
    result = study("films", model=small.name, **settings, **GRID)
    (table,) = result["forms"]
    assert table["header"] == [
        "k",
        *(f"{score}: {figure}" for score in ("sum", "contextual") for figure in form.figures),
    ]
    assert [row[0] for row in table["rows"]] == ["0", "1", "2"]
    for k, (middle, std), spread, runs, *_ in table["rows"]:
        own = [cell["accuracy"] for cell in result["cells"] if cell["factors"]["k"] == k]
        assert (middle, runs) == (pytest.approx(fmean(own)), len(own))
        assert std == (pytest.approx(stdev(own)) if len(own) > 1 else None)
        assert spread == pytest.approx(max(own) - min(own))


def test_a_place_without_a_value_is_none_and_without_a_run_is_empty(small: Model) -> None:
    """A prompt without demonstrations shows no labels, and there is no such run in the other column."""
    form = Form(title="Labels", rows=("demo-labels",), columns=("k",), figures=("mean",), metric="macro_f1")
    settings = {"methods": ("zero-shot", "few-shot"), "shots": (2,), "demo_labels": ("gold", "random")}
    result = study("films", model=small.name, forms=(form,), **settings, **GRID)
    (table,) = result["forms"]
    assert table["header"] == ["demo-labels", "0", "2"]
    none, gold, _ = table["rows"]
    assert none[0] == "none"
    assert none[2] is None
    own = [cell["macro_f1"] for cell in result["cells"] if cell["factors"].get("demo-labels") == "gold"]
    assert gold == ["gold", None, pytest.approx(fmean(own))]


def write_reels(project: Project) -> None:
    """Write a task with the labels and fields of films, and four test records."""
    project.write("tasks/reels.toml", (project.root / "tasks/films.toml").read_text())
    rows = "".join(f'{{"sentence": "odd {text}", "label": {label}}}\n' for text, label in SENTENCES[:4])
    project.write("reels/test.jsonl", rows)


def test_tests_of_other_tasks_stand_beside_the_studys_own(project: Project, small: Model) -> None:
    """Cells are asked another task's records too, with the adapter that was trained once, and only tables mix them."""
    write_reels(project)
    form = Form(title="In and out of domain", rows=("method",), columns=("test",), figures=("runs",))
    settings = {"methods": ("few-shot", "lora"), "shots": (2,), "train_sizes": (2,), "seeds": 1, "epochs": 1}
    result = study("films", model=small.name, forms=(form,), tests=("reels=reels",), **settings, **GRID)
    (table,) = result["forms"]
    assert table["header"] == ["method", "films", "reels"]
    assert table["rows"] == [["few-shot", 2, 2], ["lora", 1, 1]]
    assert [cell["n"] for cell in result["away"]] == [4, 4, 4]
    assert {cell["factors"]["test"] for cell in result["cells"]} == {"films"}
    assert len(list((project.root / result["run"] / "adapters").iterdir())) == 1
    assert result["by_test"] == []


def test_conditions_are_told_by_test_where_no_form_does(project: Project, small: Model) -> None:
    """Every condition stands with its own records and then with the other task's, over its cells."""
    write_reels(project)
    settings = {"methods": ("zero-shot", "few-shot"), "shots": (2,), "tests": ("reels=reels",)}
    result = study("films", model=small.name, **settings, **GRID)
    rows = result["by_test"]
    assert [(row["factors"]["method"], row["factors"]["test"]) for row in rows] == [
        *(("zero-shot", "films"), ("zero-shot", "reels")),
        *(("few-shot", "films"), ("few-shot", "reels")),
    ]
    assert [(row["runs"], row["n"]) for row in rows] == [(1, 6), (1, 4), (2, 6), (2, 4)]
    own = [cell["accuracy"] for cell in result["away"] if cell["factors"]["method"] == "few-shot"]
    assert rows[3]["accuracy"]["mean"] == pytest.approx(fmean(own))
    assert rows[3]["accuracy"]["ci95"][0] <= fmean(own) <= rows[3]["accuracy"]["ci95"][1]
    assert study("films", model=small.name, **GRID, shots=(2,))["by_test"] == []


def test_tests_of_one_task_are_told_apart_by_their_data(project: Project, small: Model) -> None:
    """Other records of a task, the study's own too, are a test of their own."""
    write_reels(project)
    project.write("more/test.jsonl", '{"sentence": "one more", "label": 0}\n')
    tests = ("reels=reels", "reels=more", "films=more")
    result = study("films", model=small.name, tests=tests, shots=(2,), **GRID)
    assert [(row["factors"]["test"], row["n"], row["runs"]) for row in result["by_test"]] == [
        ("films", 6, 2),
        ("reels=reels", 4, 2),
        ("reels=more", 1, 2),
        ("films=more", 1, 2),
    ]


def test_a_dry_run_counts_the_records_of_other_tests(project: Project, small: Model) -> None:
    """Cells and tokens are those of every test, and a training that both share is one."""
    write_reels(project)
    settings = {"methods": ("few-shot", "lora"), "shots": (2,), "train_sizes": (2,), "seeds": 1, "epochs": 1}
    own, both = (
        study("films", model=small.name, dry_run=True, tests=tests, **settings, **GRID)
        for tests in ((), ("reels=reels",))
    )
    assert (own["cells"], both["cells"]) == (3, 6)
    assert (own["trainings"], both["trainings"]) == (1, 1)
    assert both["tokens_computed"] > own["tokens_computed"]


def test_a_test_holds_nothing_that_is_learned_from(project: Project, small: Model) -> None:
    """Records of another test that the study shows or trains on, near copies too, are left out and counted."""
    write_reels(project)
    rows = (project.root / "data/train.jsonl").read_text()
    project.write("same/test.jsonl", rows.upper().replace("SENTENCE", "sentence").replace("LABEL", "label"))
    project.write("some/test.jsonl", rows.splitlines()[0] + '\n{"sentence": "one more", "label": 0}\n')
    result = study("films", model=small.name, tests=("reels=some",), shots=(2,), **GRID)
    assert [row["n"] for row in result["by_test"]] == [6, 1]
    assert "1 reels test records that are also training records were left out" in result["notes"]
    with pytest.raises(PromptkitError, match="test 'reels=same': every record is also a training record of 'films'"):
        study("films", model=small.name, tests=("reels=same",), shots=(2,), **GRID)


def test_a_test_with_other_labels_is_refused(project: Project, small: Model) -> None:
    """Its records could not be asked in the study's words."""
    text = (project.root / "tasks/films.toml").read_text().replace('"negative", "positive"', '"bad", "good"')
    project.write("tasks/reels.toml", text)
    with pytest.raises(PromptkitError, match=r"test 'reels': its labels are \['bad', 'good'\]"):
        study("films", model=small.name, tests=("reels=data",), shots=(2,), **GRID)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[forms]]\ntitle = "x"\nrows = ["kk"]\n', r"mine.toml: forms: rows: unknown axis 'kk'.*Did you mean 'k'\?"),
        ('[[forms]]\ntitle = "x"\nrows = ["k"]\nfigures = ["mode"]\n', "unknown figure 'mode'; known: mean, "),
        ('[[forms]]\nrows = ["k"]\n', "mine.toml: forms: title: Field required"),
        ('[[forms]]\ntitle = "x"\nrows = ["k"]\nstyle = "bold"\n', "forms: style: Extra inputs are not permitted"),
        ('forms = "k"\n', r"`forms` is 'k'; give tables, each under \[\[forms\]\]"),
    ],
)
def test_forms_that_say_nothing_known_are_refused(project: Project, text: str, message: str) -> None:
    """The file, the place in it and what is known are named."""
    project.write("mine.toml", text)
    with pytest.raises(PromptkitError, match=message):
        load_settings("mine.toml")
