"""Fixtures that every test module may use."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings

from promptkit.experiments.identity import OWN

# a busy machine is slow, not wrong
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

TASK = """\
description = "Movie-review sentences, positive or negative"
labels = ["negative", "positive"]
templates = "films"

[fields]
text = "sentence"
label = "label"

[data]
path = "nobody/films"
train = "train"
test = "validation"
"""

TEMPLATE = """\
{# The usual way. #}
{% macro instruction(labels) %}
Label the following review with either {{ labels | either }}.
{%- endmacro %}

{% macro input(text) %}
Text: {{ text }}
Sentiment:
{%- endmacro %}

{% macro target(label) %} {{ label }}{% endmacro %}
"""

SENTENCES = [
    ("a warm little film", 1),
    ("the jokes never land", 0),
    ("you will want to see it twice", 1),
    ("two hours of grey soup", 0),
    ("sharp, tender and quick", 1),
    ("nobody seems to be awake", 0),
]


Given = TypeVar("Given", bound=Callable[..., Any])


def own_scorer(function: Given) -> Given:
    """Let a scorer say that it gives what promptkit's own gives: its cells are those of the model."""
    vars(function)["identity"] = OWN["scorer"]
    return function


def own_trainer(function: Given) -> Given:
    """Let a trainer say the same of its adapters."""
    vars(function)["identity"] = OWN["trainer"]
    return function


class Project:
    """A user's project in a temporary working directory: tasks, templates and data as files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("tasks/films.toml", TASK)
        self.write("templates/films/plain.jinja", TEMPLATE)
        rows = "".join(f'{{"sentence": "{text}", "label": {label}}}\n' for text, label in SENTENCES)
        self.write("data/train.jsonl", rows)
        self.write("data/test.jsonl", rows.replace('"sentence": "', '"sentence": "still '))

    def write(self, name: str, text: str | bytes) -> Path:
        """Write a file of the project, byte for byte, and return its path."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A user's project, with the working directory set to it."""
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


def pytest_collection_finish() -> None:
    """Keep what was imported out of every later collection: each training asks for one, and walks half a million."""
    gc.collect()
    gc.freeze()
