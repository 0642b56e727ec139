"""Several processes train one adapter: the rows are shared out, one process writes, all seeds mean the same."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from promptkit.adapters.card import read_card
from promptkit.training import train
from promptkit.training.batches import LengthSampler
from promptkit.training.trainer import Shares, part_size, parts_per_batch
from tests.helpers.training_fakes import model, rows, saved, settings, weights

# peft asks transformers by an old name when it wraps a network
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.mark.parametrize("batch", [1, 4, 7, 8])
@pytest.mark.parametrize("micro", [None, 1, 3])
@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 16, 21])
def test_every_row_counts_once(batch: int, micro: int | None, processes: int, count: int) -> None:
    """However a batch is cut, each of its rows weighs 1 / rows in the mean over processes of the sum over parts."""
    given = settings(batch_size=batch, micro_batch=micro, processes=processes)
    lengths = [number % 5 for number in range(count)]
    shares = [
        list(Shares(LengthSampler(lengths, batch, 0), part_size(given), process, processes))
        for process in range(processes)
    ]
    made = Shares(LengthSampler(lengths, batch, 0), part_size(given), 0, processes)
    assert {len(each) for each in shares} == {len(made)}
    assert max(len(part) for part in itertools.chain(*shares)) <= part_size(given)
    order = list(LengthSampler(lengths, batch, 0))
    for step, first in enumerate(range(0, count, batch)):
        wanted = order[first : first + batch]
        weight = dict.fromkeys(wanted, 0.0)
        parts = slice(step * parts_per_batch(given), (step + 1) * parts_per_batch(given))
        for part in itertools.chain.from_iterable(each[parts] for each in shares):
            for number, share in part:
                weight[number] += share / len(part) / processes
        assert weight == pytest.approx(dict.fromkeys(wanted, 1 / len(wanted)))


LAUNCHED = """
import json, sys
from promptkit import train
from promptkit import load_model
from tests.helpers.training_fakes import rows

base, out, given = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
adapter = train(load_model(base, device="cpu"), rows(21), validation=rows(6, seed=2), out=out, **given)
assert adapter.path.name == "adapter" and len(adapter.validation) == 2
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_processes_train_what_one_would(tmp_path: Path) -> None:
    """Launched twice, training has the same batches, losses and accuracies, and the same weights but for rounding."""
    base = saved(model(), tmp_path / "base")
    one = train(base, rows(21), validation=rows(6, seed=2), batch_size=8, epochs=2, out=tmp_path / "one")
    script = tmp_path / "launched.py"
    script.write_text(LAUNCHED)
    command = [sys.executable, str(script), base.name, str(tmp_path / "adapter"), '{"batch_size": 8, "epochs": 2}']
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    environment = {**os.environ, **world, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            command, env={**environment, "RANK": rank, "LOCAL_RANK": rank}, stderr=subprocess.PIPE, text=True
        )
        for rank in ("0", "1")
    ]
    for process in started:
        _, errors = process.communicate(timeout=900)
        assert process.returncode == 0, errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base", "launched.py", "one"]
    card = read_card(tmp_path / "adapter")
    assert card.settings.processes == 2
    assert card.train.losses == pytest.approx(one.losses, rel=1e-5)
    assert card.train.validation == one.validation
    for name, weight in load_file(tmp_path / "adapter" / "adapter_model.safetensors").items():
        torch.testing.assert_close(weight, weights(one)[name], atol=2e-4, rtol=1e-3)
