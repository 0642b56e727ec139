"""Choose the number format in which this machine trains a model fastest."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from promptkit.adapters.card import TrainSettings
from promptkit.adapters.loading import share_weights
from promptkit.training.batches import TokenRow, encode_pairs, read_pairs
from promptkit.training.collation import choose_collation
from promptkit.training.lora import wrap
from promptkit.training.loss import attending, completion_loss

if TYPE_CHECKING:
    from promptkit.models import Model
    from promptkit.prompts.pair import Pair

#: bfloat16 has 8 bits of precision: it has to save more than the noise of the clock to be worth it.
WORTH = 0.9
_ROWS = 8
_STEPS = 2


@dataclass(frozen=True, slots=True)
class Timing:
    """What a step took in each number format, in seconds, and the one to take."""

    dtype: str
    seconds: Mapping[str, float]


def choose_dtype(model: Model, pairs: Iterable[Pair | Mapping[str, Any]], *, chat: bool = False) -> Timing:
    """Time a training step of a float32 model in float32 and in bfloat16, and choose.

    Either is run for half a second, and twice at least, on the rows of the middling length. bfloat16 is taken where its
    step takes less than `WORTH` of float32's: on CPUs and GPUs that compute in it. What is chosen depends on the
    machine and its moment; to get the same bytes again, ask for the format by name. Raises DataError and TrainError as
    `train` does.
    """
    rows = sorted(encode_pairs(model, read_pairs(pairs, chat=chat), chat=chat), key=lambda row: row.length)
    first = max(0, len(rows) // 2 - _ROWS // 2)
    timed = rows[first : first + _ROWS]
    seconds = {"float32": _time_step(model, timed)}
    lower = replace(model, network=share_weights(model.network).to(torch.bfloat16), dtype="bfloat16")
    seconds["bfloat16"] = _time_step(lower, timed)
    return Timing("bfloat16" if seconds["bfloat16"] < WORTH * seconds["float32"] else "float32", seconds)


def _time_step(model: Model, rows: Sequence[TokenRow], budget: float = 0.5) -> float:
    """Return the seconds of the fastest of some steps, forward and backward, after one that does not count.

    Two count at least: a machine that is busy with other work holds a single one up for seconds.
    """
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), torch.enable_grad():
        network = wrap(model, _SETTINGS)
        batch = choose_collation(replace(model, network=network), rows, len(rows)).collate(rows)
        moved = {name: value.to(model.device) if torch.is_tensor(value) else value for name, value in batch.items()}
        _step(network, moved)
        started, steps = time.perf_counter(), [_step(network, moved)]
        while len(steps) < _STEPS or time.perf_counter() - started < budget:
            steps.append(_step(network, moved))
    return min(steps)


def _step(network: torch.nn.Module, batch: Any) -> float:
    network.train()
    started = time.perf_counter()
    with attending(network, batch):
        torch.autograd.backward(completion_loss(network, batch))
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


#: Of the adapter that is timed: its rank and rate do not matter for the choice.
_SETTINGS = TrainSettings(
    rank=8, alpha=16, dropout=0.0, targets="all-linear", learning_rate=1e-4, epochs=1, batch_size=_ROWS, seed=0,
    patience=1, chat=False, seeds=None,
)  # fmt: skip
