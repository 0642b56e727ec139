"""A training inside a comparison outlives a kill, as one by `promptkit train` does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from promptkit.compare import compare
from promptkit.train import train
from tests.conftest import Project
from tests.test_compare import bytes_of
from tests.training_fakes import model as random_model
from tests.training_fakes import saved

SETTINGS: dict[str, Any] = {"methods": ("lora",), "limit": 4, "shots": (0,), "seeds": 1, "epochs": 4, "rank": 2}

KILLED = """
import os, signal, sys
from promptkit.compare import compare
from promptkit.train import train
from tests.test_work import SETTINGS

def trainer(*given, **settings):
    def progress(done, total):
        if done == 3:
            os.kill(os.getpid(), signal.SIGKILL)
    return train(*given, **{**settings, "save_seconds": 0, "progress": progress})

compare("films", model="small", data="data", out="run", trainer=trainer, **SETTINGS)
"""


def test_a_killed_comparison_goes_on_within_its_training(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """After kill -9 in the middle of a training it goes on from there, to the same bytes; its state is gone then."""
    saved(random_model(window=256), project.root / "small")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", KILLED], env=environment, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not list(Path("run").glob("cells/*"))
    seen: list[int] = []

    def trainer(*given: Any, **settings: Any) -> Any:
        def progress(step: int, of: int) -> None:
            seen.append(step)

        return train(*given, **{**settings, "progress": progress})

    given = {"model": "small", "data": "data", **SETTINGS}
    compare("films", out="run", trainer=trainer, **given)
    assert seen[0] > 1
    compare("films", out="whole", **given)
    assert bytes_of("run") == bytes_of("whole")
    assert [path.name[0] for path in Path("run/adapters").iterdir()] != ["."]
    assert len(list(Path("run/adapters").iterdir())) == 1
