"""Choose from the first rows of a training how batches are put together: packed where that is right, else padded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch

from promptkit.scoring.float32 import in_float32
from promptkit.scoring.forward import Network
from promptkit.training.batches import Batch, TokenRow, collate
from promptkit.training.loss import attending, completion_logits
from promptkit.training.packed_attention import UnpackableError
from promptkit.training.packing import lay_out, pack

if TYPE_CHECKING:
    from promptkit.models import Model

_COMPARED = 4  # rows of the first batch: as many show what a whole batch would, for a fraction of a step
_CLOSE = 1e-3  # of the logits' size; rows that see others are off by far more
_HALVES = (torch.bfloat16, torch.float16)
_COARSE, _TWICE = 5e-2, 2.0  # in 16 bits: what is never too much, and times what rounding alone does

#: What a network may raise that is not made for packed rows.
_REFUSALS = (UnpackableError, RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError)


@dataclass(frozen=True, slots=True)
class Collation:
    """How rows become a batch; `padded` says why they are padded and not packed, and is empty where they are packed."""

    collate: Callable[[Sequence[TokenRow]], Batch]
    padded: str = ""


def choose_collation(model: Model, rows: Sequence[TokenRow], batch_size: int) -> Collation:
    """Return packing, if the network gives packed rows what it gives them alone, else padding and the reason.

    `model` has the adapter around its network; `rows` are all that will be trained. Some of the first batch, from its
    shortest row to its longest, are run packed and alone, without gradients.
    """
    reason = _why_not(Network(model), max(row.length for row in rows)) or _difference(model, _pick(rows[:batch_size]))
    return Collation(collate, reason) if reason else Collation(pack)


def _pick(rows: Sequence[TokenRow]) -> list[TokenRow]:
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


def _difference(model: Model, rows: Sequence[TokenRow]) -> str:
    """Return by how much packed rows differ from rows alone, in words; nothing where they agree."""
    network = model.network
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            return _compare_rounded(network, rows) if network.dtype in _HALVES else _compare(network, rows)
    except _REFUSALS as refusal:
        first, _, _ = str(refusal).partition("\n")
        return f"packed rows do not run: {first or type(refusal).__name__}"
    finally:
        network.train(training)


def _compare(network: torch.nn.Module, rows: Sequence[TokenRow]) -> str:
    return _tell(_find_error(_run_packed(network, rows), _run_alone(network, rows)), _CLOSE)


def _compare_rounded(network: torch.nn.Module, rows: Sequence[TokenRow]) -> str:
    """Compare in 16 bits, where rounding alone may move logits by a tenth of their size.

    In float32 the same weights show what is wrong with packing and no rounding; in 16 bits, packed rows must then be
    about as near to float32 as rows alone are. Where there is no float32, for want of memory or of a network that runs
    in it, they must be about as near to rows alone as a padded batch is.
    """
    packed, alone = _run_packed(network, rows), _run_alone(network, rows)
    try:
        with in_float32(network):
            exact = _run_alone(network, rows)
            refused = _tell(_find_error(_run_packed(network, rows), exact), _CLOSE)
    except _REFUSALS:
        return _tell(_find_error(packed, alone), _allow(_find_error(_run_padded(network, rows), alone)))
    return refused or _tell(_find_error(packed, exact), _allow(_find_error(alone, exact)))


def _allow(rounding: float) -> float:
    return max(_COARSE, _TWICE * rounding)


def _tell(error: float, close: float) -> str:
    if error <= close:
        return ""
    return f"packed rows differ from rows alone by {error:.1e} of their logits, above {close:.1g}"


def _find_error(found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> float:
    """Return the largest difference of a row's logits, as a share of their spread; no number where one is none."""
    errors = []
    for ours, theirs in zip(found, wanted, strict=True):
        spread = torch.linalg.vector_norm(theirs - theirs.mean(dim=-1, keepdim=True))
        errors.append(torch.linalg.vector_norm(ours - theirs) / spread)
    return float(torch.stack(errors).max())


def _run_alone(network: torch.nn.Module, rows: Sequence[TokenRow]) -> list[torch.Tensor]:
    """Return the logits [targets, V] of every row run by itself, in the order of `lay_out`, like the two below."""
    return [_logits(network, collate([row])).float() for row in lay_out(rows)[1]]


def _run_packed(network: torch.nn.Module, rows: Sequence[TokenRow]) -> list[torch.Tensor]:
    return _split(_logits(network, pack(rows)), lay_out(rows)[1])


def _run_padded(network: torch.nn.Module, rows: Sequence[TokenRow]) -> list[torch.Tensor]:
    ordered = lay_out(rows)[1]
    return _split(_logits(network, collate(ordered)), ordered)


def _split(logits: torch.Tensor, rows: Sequence[TokenRow]) -> list[torch.Tensor]:
    return list(torch.split(logits.float(), [row.targets for row in rows]))


def _logits(network: torch.nn.Module, batch: Batch) -> torch.Tensor:
    device = next(network.parameters()).device
    moved = {name: part.to(device) if isinstance(part, torch.Tensor) else part for name, part in batch.items()}
    on_device = cast("Batch", moved)
    with attending(network, on_device):
        return completion_logits(network, on_device)
