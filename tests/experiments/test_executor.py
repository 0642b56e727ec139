"""A training inside a comparison outlives a kill, as one by `promptkit train` does."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from promptkit.adapters.card import count_weights
from promptkit.costs.flops import shape_of, training_flops
from promptkit.experiments.compare import compare
from promptkit.experiments.executor import _training_counts
from promptkit.training import train
from tests.conftest import Project, own_trainer
from tests.experiments.test_compare import bytes_of
from tests.helpers.training_fakes import model as random_model
from tests.helpers.training_fakes import rows, saved, weights

SETTINGS: dict[str, Any] = {"methods": ("lora",), "limit": 4, "shots": (0,), "seeds": 1, "epochs": 4, "rank": 2}

KILLED = """
import os, signal, sys
from promptkit.experiments.compare import compare
from promptkit.training import train
from tests.conftest import own_trainer
from tests.experiments.test_executor import SETTINGS

@own_trainer
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
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", KILLED], env=environment, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not list(Path("run").glob("cells/*"))
    seen: list[int] = []

    @own_trainer
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


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_a_training_counts_the_active_experts(tmp_path: Path) -> None:
    """The FLOPs of a training count an adapter's weights of the experts by the share of them that each token uses."""
    mixture = {"num_local_experts": 4, "num_experts_per_tok": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    mixtral = random_model("mixtral", num_hidden_layers=2, intermediate_size=32, **mixture)
    adapter = train(mixtral, rows(1), epochs=1, top_layers=1, probes=0, out=tmp_path / "adapter")
    sizes = {name: math.prod(weight.shape) for name, weight in weights(adapter).items()}
    experts = sum(size for name, size in sizes.items() if ".experts." in name)
    active = sum(sizes.values()) - experts * 3 // 4
    assert (count_weights(adapter.path), count_weights(adapter.path, 1 / 4)) == (sum(sizes.values()), active)
    counts = _training_counts(mixtral, adapter, adapter.path)
    shape = replace(shape_of(mixtral.network), adapter=active)
    expected = training_flops(shape, 1, adapter.tokens_trained, 1, adapter.targets_trained, layers=1)
    assert (counts["adapter_weights"], counts["flops"]) == (sum(sizes.values()), expected)
