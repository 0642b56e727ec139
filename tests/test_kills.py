"""Verbs that are killed and started again: they end as an undisturbed run does, with nothing lost or left over."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.kills import COMMANDS, compare

ROOT = Path(__file__).parents[1]


def test_killed_verbs_end_as_undisturbed_ones() -> None:
    """A part of the kills that `python -m tests.helpers.kills` tries: each verb that writes, once."""
    command = [sys.executable, "-m", "tests.helpers.kills", "--count", str(len(COMMANDS)), "--seed", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.endswith(f"{len(COMMANDS)} passed, 0 failed\n")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"o/cells/a.json": "1"}, []),
        ({"o/cells/a.json": "2"}, ["o/cells/a.json differs"]),
        ({}, ["o/cells/a.json is missing"]),
        ({"o/cells/a.json": "1", "o/.x.tmp": "1"}, ["o/.x.tmp was left"]),
    ],
)
def test_what_a_kill_changed_is_noticed(found: dict[str, str], said: list[str]) -> None:
    """What is missing, left over or different is named; what holds seconds may differ."""
    assert compare({"o/cells/a.json": "1", "o/measures/a.json": "3"}, {**found, "o/measures/a.json": "4"}) == said
