"""The first rows of a training into how all its batches are put together: packed where that is right, else padded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch

from promptkit.score.forward import Network
from promptkit.train.attention import UnpackableError
from promptkit.train.batches import Batch, Row, collate
from promptkit.train.loss import attending, completion_logits
from promptkit.train.packing import lay_out, pack

if TYPE_CHECKING:
    from promptkit.models import Model

_COMPARED = 4  # rows of the first batch: as many show what a whole batch would, for a fraction of a step
_CLOSE = {torch.float32: 1e-3, torch.float64: 1e-3}  # of the logits' size; rows that see others are off by far more
_COARSE = 5e-2  # for 16 bits, whose own rounding adds up to some 1e-2 over the layers

#: What a network may raise that is not made for packed rows.
_REFUSALS = (UnpackableError, RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError)


@dataclass(frozen=True, slots=True)
class Collation:
    """How rows become a batch; `padded` says why they are padded and not packed, and is empty where they are packed."""

    collate: Callable[[Sequence[Row]], Batch]
    padded: str = ""


def choose_collation(model: Model, rows: Sequence[Row], batch_size: int) -> Collation:
    """Return packing, if the network gives packed rows what it gives them alone, else padding and the reason.

    `model` has the adapter around its network; `rows` are all that will be trained. Some of the first batch, from its
    shortest row to its longest, are run packed and alone, without gradients.
    """
    reason = _why_not(Network(model), max(row.length for row in rows)) or _difference(model, _pick(rows[:batch_size]))
    return Collation(collate, reason) if reason else Collation(pack)


def _pick(rows: Sequence[Row]) -> list[Row]:
    by_length = sorted(rows, key=lambda row: row.length)
    last, count = len(rows) - 1, min(_COMPARED, len(rows))
    return [by_length[place * last // max(1, count - 1)] for place in range(count)]


def _why_not(known: Network, longest: int) -> str:
    """Return what is known beforehand to keep a network from packed rows of at most `longest` tokens."""
    if known.unshared:
        return known.unshared
    if known.window is not None and known.window < longest:
        return f"{known.name} looks back {known.window} tokens, but a row has {longest}"
    if known.length_limit is not None and known.length_limit < longest:
        return f"{known.name} encodes positions by the length of the whole, and a row has {longest} tokens"
    return ""


def _difference(model: Model, rows: Sequence[Row]) -> str:
    """Return by how much packed rows differ from rows alone, in words; nothing where they agree."""
    network = model.network
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            error = _measure_error(network, rows)
    except _REFUSALS as refusal:
        first, _, _ = str(refusal).partition("\n")
        return f"packed rows do not run: {first or type(refusal).__name__}"
    finally:
        network.train(training)
    close = _CLOSE.get(network.dtype, _COARSE)
    return (
        "" if error <= close else f"packed rows differ from rows alone by {error:.1e} of their logits, above {close:g}"
    )


def _measure_error(network: torch.nn.Module, rows: Sequence[Row]) -> float:
    """Return the largest difference of the logits of packed rows to those alone, as a share of their spread."""
    _, ordered = lay_out(rows)
    together = torch.split(_logits(network, pack(rows)), [row.targets for row in ordered])
    errors = []
    for row, found in zip(ordered, together, strict=True):
        alone = _logits(network, collate([row])).float()
        spread = torch.linalg.vector_norm(alone - alone.mean(dim=-1, keepdim=True))
        errors.append(torch.linalg.vector_norm(found.float() - alone) / spread)
    return float(torch.stack(errors).max())  # not a number where one is none


def _logits(network: torch.nn.Module, batch: Batch) -> torch.Tensor:
    device = next(network.parameters()).device
    moved = {name: part.to(device) if isinstance(part, torch.Tensor) else part for name, part in batch.items()}
    on_device = cast("Batch", moved)
    with attending(network, on_device):
        return completion_logits(network, on_device)
