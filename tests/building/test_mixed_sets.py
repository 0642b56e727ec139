"""Several tasks in one training set: shares, what none of them may train on, and what their rows share."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import promptkit as pk
from promptkit.building import TrainingSet, make_mixture
from tests.building.test_training_set import FREE, lines, sets
from tests.conftest import TEMPLATE, Project

__all__ = ["sets"]  # a fixture


def mixture(**given: Any) -> TrainingSet:
    """Return a mixture of the films and a smaller task."""
    parts = {"films": {"data": "data", "templates": {"plain": 1, "terse": 1}}, "songs": {"data": "songs"}}
    return TrainingSet(make_mixture({"tasks": parts, **given}, "here"))


@pytest.fixture
def two(sets: Project) -> Project:
    """The project with a second task of 15 records."""
    sets.write("tasks/songs.toml", Path("tasks/films.toml").read_text())
    sets.write("songs/train.jsonl", lines(range(300, 315)))
    sets.write("songs/test.jsonl", lines(range(400, 410)))
    return sets


def test_a_mixture_holds_every_task_by_its_share(two: Project) -> None:
    """By default each record comes once; temperature and caps change the shares, and small tasks come again."""
    assert mixture().counts == {"films": 60, "songs": 15}
    assert mixture(temperature=2).counts == {"films": 50, "songs": 25}
    assert mixture(cap=15).counts == {"films": 15, "songs": 15}
    made = mixture(limit=200, cap=15)
    rows = list(made.rows())
    assert made.counts == {"films": 100, "songs": 100}
    songs = Counter(row["id"] for row in rows if row["task"] == "songs")
    assert set(songs.values()) == {6, 7}
    assert {row["repeat"] for row in rows if row["task"] == "songs"} == set(range(7))
    halves = [Counter(row["task"] for row in half)["songs"] for half in (rows[:100], rows[100:])]
    assert halves == [50, 50]


def test_records_that_come_again_are_counted_in_a_mixture_of_one(sets: Project) -> None:
    """Where one task has fewer records than the limit, the column `repeat` tells its rows apart."""
    parts = {"films": {"data": "data", "balance": True, "limit": 10}}
    rows = list(TrainingSet(make_mixture({"tasks": parts, "limit": 30}, "here")).rows())
    assert Counter(Counter(row["id"] for row in rows).values()) == {3: 10}
    assert len({(row["id"], row["repeat"]) for row in rows}) == 30
    assert "repeat" not in next(TrainingSet(make_mixture({"tasks": parts, "limit": 10}, "here")).rows())


def test_a_smaller_mixture_is_the_beginning_of_a_larger_one(two: Project) -> None:
    """Limits of a mixture are nested, whatever its shares."""
    large = list(mixture(limit=150, temperature=3).rows())
    for limit in (1, 10, 77):
        assert list(mixture(limit=limit, temperature=3).rows()) == large[:limit]


def test_what_one_task_tests_another_does_not_train(two: Project) -> None:
    """Overlap is found across the tasks of a mixture, and copies between those that ask the same."""
    two.write("songs/train.jsonl", lines(range(300, 315)) + lines([200, 7]))
    two.write("songs/test.jsonl", lines([3]))
    made = mixture()
    assert made.candidates["songs"].findings.count() == {
        "in the test split of films": 1,
        "a copy of another record": 1,
    }
    assert made.candidates["films"].findings.count() == {"in the test split of songs": 1}
    two.write("tasks/songs.toml", Path("tasks/films.toml").read_text().replace('"positive"]', '"positive", "mixed"]'))
    two.write("templates/films/plain.jinja", TEMPLATE)
    assert "a copy of another record" not in mixture().candidates["songs"].findings.count()


def test_every_test_split_counts_where_parts_share_a_task(two: Project) -> None:
    """Two parts of one task on different data are kept apart from the tests of both, each named by its part."""
    two.write("other/train.jsonl", lines([*range(500, 510), 200]))
    two.write("other/test.jsonl", lines([3]))
    parts = {"films": {"data": "data"}, "other": {"task": "films", "data": "other"}}
    made = TrainingSet(make_mixture({"tasks": parts}, "here"))
    assert made.candidates["films"].findings.count() == {"in the test split of other": 1}
    assert made.candidates["other"].findings.count() == {"in the test split of films": 1}
    assert set(made.candidates["other"].tested) == {
        "the validation split of films",
        "the test split of films",
        "the test split of other",
    }


def test_one_folder_is_one_source_however_it_is_spelled(two: Project) -> None:
    """Parts share their records, and leave none of them out as copies, where their paths lead to the same place."""
    parts = {"films": {"data": "data"}, "again": {"task": "films", "data": "songs/../data"}}
    made = TrainingSet(make_mixture({"tasks": parts}, "here"))
    assert made.counts == {"films": 60, "again": 60}


def test_what_one_task_holds_out_another_does_not_train(two: Project) -> None:
    """No training record of any task is a copy of a held-out one, though the tasks ask different things of it."""
    two.write("tasks/songs.toml", Path("tasks/films.toml").read_text().replace('"positive"]', '"positive", "mixed"]'))
    two.write("songs/train.jsonl", lines(range(60)).replace("the ", "The ").replace('"r', '"s'))
    train = list(mixture(hold_out=20).rows())
    held = list(mixture(hold_out=20, split="validation").rows())
    texts = [{row["id"][1:] for row in rows} for rows in (train, held)]
    assert Counter(row["task"] for row in held) == {"films": 20, "songs": 20}
    assert not texts[0] & texts[1]
    assert texts[0] | texts[1] == set(map(str, range(60)))
    shared = mixture(hold_out=20, split="validation", temperature=2.0, limit=50, cap=3, epochs=2).rows()
    assert [row["id"] for row in shared] == [row["id"] for row in held]
    counts = mixture(hold_out=20).candidates["songs"].findings.count()
    assert counts["nearly in the held-out records of films"] > 0
    assert counts["held out for validation"] == 20


def test_free_answers_and_labels_share_a_column(two: Project) -> None:
    """Where tasks with free answers are mixed in, labels are names: a data set's column has one type."""
    two.write("tasks/songs.toml", Path("tasks/films.toml").read_text().replace('labels = ["negative", "positive"]', ""))
    two.write("templates/films/free.jinja", FREE)
    parts = {"films": {"data": "data"}, "songs": {"data": "songs", "templates": ["free"]}}
    rows = pk.build_pairs(make_mixture({"tasks": parts}, "here"))
    assert set(rows["label"]) == {"negative", "positive", "0", "1"}


def test_tasks_may_list_the_same_fields_in_another_order(two: Project) -> None:
    """What is tested on in one task is found in another whose file names its fields the other way round."""
    fields = ["premise", "hypothesis"]
    for name, order in (("a", fields), ("b", fields[::-1])):
        columns = "".join(f'{field} = "{field}"\n' for field in order)
        two.write(
            f"tasks/{name}.toml",
            f'''description = "{name}"
templates = "nli"
labels = ["no", "yes"]
metric = "accuracy"
[fields]
{columns}label = "label"
[data]
path = "nowhere/{name}"
train = "train"
test = "test"
''',
        )
        rows = [{"premise": f"p {name} {n}", "hypothesis": f"h {name} {n}", "label": n % 2} for n in range(4)]
        two.write(f"mixed/{name}/train.jsonl", "\n".join(map(json.dumps, rows)))
        tested = "a 0" if name == "b" else "none"
        row = {"premise": f"p {tested}", "hypothesis": f"h {tested}", "label": 0}
        two.write(f"mixed/{name}/test.jsonl", json.dumps(row))
    two.write(
        "templates/nli/plain.jinja",
        "{% macro input(premise, hypothesis) %}{{ premise }} {{ hypothesis }}?"
        "{% endmacro %}{% macro target(label) %} {{ label }}{% endmacro %}",
    )
    two.write("nli.toml", "[tasks.a]\n[tasks.b]\n")
    rows = pk.build_pairs("nli.toml", data="mixed")
    assert Counter(row["task"] for row in rows) == {"a": 3, "b": 4}
