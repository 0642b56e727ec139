"""Mixtures: their files, their shares, and whose turn it is."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptkit.building.mixture import deal_parts, is_mixture, load_mixture, make_mixture, parse_weight, share_records
from promptkit.data.tasks import load_task
from promptkit.errors import DataError, TaskError
from tests.conftest import Project

FILE = """\
limit = 100
temperature = 2
epochs = 3

[tasks.films]
data = "data"
templates = { plain = 2, terse = 1 }
labels = ["own", "zip,nop"]

[tasks.again]
task = "films"
shots = [0, 4]
"""


def test_a_file_becomes_a_mixture(project: Project) -> None:
    """A table per task, whose key is the task unless it names one; data are beside the file."""
    mixture = load_mixture(project.write("sets/mixture.toml", FILE), seed=7)
    films, again = mixture.tasks["films"], mixture.tasks["again"]
    assert (mixture.limit, mixture.temperature, mixture.epochs, mixture.seed) == (100, 2, 3, 7)
    assert (films.task, films.data, films.templates, films.drawn) == ("films", "sets/data", {"plain": 2, "terse": 1}, 1)
    assert films.labels == {"own": None, "zip,nop": None}
    assert (again.task, again.shots, again.drawn, again.data) == ("films", (0, 4), None, None)
    assert mixture.at("there").tasks["again"].data == "there/again"


def test_tasks_and_mixtures_are_told_apart_by_content(project: Project) -> None:
    """A TOML file is a mixture where it has tasks; each kind says what it is where the other was wanted."""
    mixture = project.write("mixture.toml", FILE)
    assert is_mixture(mixture)
    assert not any(map(is_mixture, ["tasks/films.toml", "films", "nothing.toml", "data"]))
    with pytest.raises(TaskError, match=r"mixture\.toml: is a mixture of tasks, which only `promptkit build` takes"):
        load_task("mixture.toml")
    with pytest.raises(DataError, match=r"films\.toml: no \[tasks\.NAME\].*this is a task file"):
        load_mixture("tasks/films.toml")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("temperatur = 2\n" + FILE, r"temperatur: unknown setting; .*Did you mean 'temperature'"),
        (FILE.replace("shots", "shot"), r"tasks\.again\.shot: unknown setting; .*Did you mean 'shots'"),
        (FILE.replace("epochs = 3", "epochs = 0"), r"epochs: found 0; input should be greater than or equal to 1"),
        (FILE.replace("plain = 2", "plain = 0"), r"tasks\.films\.templates\.plain: found 0\b.*greater than 0"),
        (FILE.replace("[0, 4]", "[-1]"), r"tasks\.again\.shots\.0: found -1"),
        (
            FILE.replace("shots", "per_record = 'foo'\nshots"),
            r"tasks\.again\.per_record: found 'foo'; input should be a valid integer, or input should be 'all'",
        ),
        (FILE.replace("[0, 4]", "[true]"), r"tasks\.again\.shots\.0: found True"),
        (FILE.replace("[0, 4]", "[]"), r"tasks\.again\.shots: nothing in it; give one or more"),
        ("[tasks]\n", r"tasks: nothing in it; give one or more"),
        (
            "temperature = 2\n[tasks.films]\n",
            r"mixture\.toml: temperature shares records out among several tasks, and there is one",
        ),
        (FILE.replace('"own", "zip,nop"', '"own=2", "own=3"'), r"tasks\.films\.labels: .*'own' is named twice"),
        ("tasks = 3\n", r"tasks: found 3"),
        ("limit = \n", r"mixture\.toml: .*line 1"),
    ],
)
def test_what_is_wrong_is_named(project: Project, changed: str, message: str) -> None:
    """An error names the file and the setting, on one line."""
    with pytest.raises(DataError, match=message) as caught:
        load_mixture(project.write("mixture.toml", changed))
    assert str(caught.value).startswith("mixture.toml: ")
    assert "\n" not in str(caught.value)


def test_names_may_hold_equal_signs() -> None:
    """Only a number behind the last one is a weight."""
    assert parse_weight("plain=2") == ("plain", 2.0)
    assert parse_weight("a=b.jinja") == ("a=b.jinja", None)
    assert parse_weight("a=b=0.5") == ("a=b", 0.5)
    assert parse_weight("plain") == ("plain", None)


def test_shares_follow_temperature_caps_and_weights() -> None:
    """A part's share is its weight times min(n, cap) to the power 1 / temperature."""

    def shares(counts: list[int], weights: tuple[float, ...] = (1, 1, 1), **settings: Any) -> list[float]:
        parts = {str(place): {"task": "films", "weight": weight} for place, weight in enumerate(weights)}
        return share_records(counts, make_mixture({"tasks": parts, **settings}, "here"))

    assert shares([100, 400, 900]) == pytest.approx([1 / 9, 4 / 9, 1])
    assert shares([100, 400, 900], temperature=2) == pytest.approx([1 / 3, 2 / 3, 1])
    assert shares([100, 400, 900], cap=400, temperature=2) == pytest.approx([1 / 2, 1, 1])
    assert shares([100, 400, 900], weights=(3, 1, 1)) == pytest.approx([3 / 9, 4 / 9, 1])
    assert shares([100, 400, 900], temperature=0.001) == pytest.approx([0, 0, 1])


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_whole_shares_are_dealt_exactly(counts: list[int]) -> None:
    """As many turns as records give every part as many turns as it has records."""
    parts = {str(place): {"task": "films"} for place in range(len(counts))}
    shares = share_records(counts, make_mixture({"tasks": parts}, "here"))
    dealt = Counter(itertools.islice(deal_parts(shares), sum(counts)))
    assert [dealt[place] for place in range(len(counts))] == counts


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=5), st.integers(1, 300))
def test_any_beginning_is_mixed_by_the_shares(shares: list[float], count: int) -> None:
    """A beginning of any length holds every part by its share, to within half a record per part."""
    dealt = Counter(itertools.islice(deal_parts(shares), count))
    for place, share in enumerate(shares):
        assert abs(dealt[place] - count * share / sum(shares)) <= len(shares) / 2


def test_missing_files_are_one_line(tmp_path: Path) -> None:
    """A path where nothing is says so."""
    with pytest.raises(DataError, match="no such mixture file"):
        load_mixture(tmp_path / "nothing.toml")
