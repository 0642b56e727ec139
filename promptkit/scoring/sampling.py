"""Draw several texts per prompt: how their tokens are drawn, and with which random numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from promptkit.errors import ModelError, PromptkitError

if TYPE_CHECKING:
    import torch

#: What Wang et al. 2022 drew GPT-3's rationales with.
TEMPERATURE = 0.7
_LIKELIEST = 256  # tokens that reach most top-p; to sort the whole vocabulary takes longer than the network
_BITS = 53  # of a random number: as many as a double holds


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the texts after a prompt are drawn: `samples` of them, token by token, from the model's distribution.

    The logits are divided by `temperature`. With `top_p` below 1 only the most likely tokens are drawn that
    together reach that probability, and what is as likely as the last of them (the nucleus of Holtzman et al. 2020,
    section 3.1).

    Raises PromptkitError for a number out of range.
    """

    samples: int
    temperature: float = TEMPERATURE
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise PromptkitError(f"samples is {self.samples}; to draw takes 2 or more, and 1 is the greedy text")
        if not 0 < self.temperature < math.inf:
            raise PromptkitError(f"temperature is {self.temperature:g}; it must be above 0, and finite")
        if not 0 < self.top_p <= 1:
            raise PromptkitError(f"top-p is {self.top_p:g}; it must be above 0 and at most 1")


def choose_sampling(
    samples: int = 1, temperature: float | None = None, top_p: float | None = None, seed: int = 0
) -> Sampling | None:
    """Return how to draw `samples` texts per prompt; None for 1, which is the greedy text.

    Raises PromptkitError for a number out of range, and for settings of a draw where nothing is drawn.
    """
    if samples == 1:
        given = {"temperature": temperature, "top-p": top_p}
        for name in (name for name, value in given.items() if value is not None):
            raise PromptkitError(f"{name} goes with several samples; one text per prompt is the most likely one")
        return None
    return Sampling(
        samples,
        TEMPERATURE if temperature is None else temperature,
        1.0 if top_p is None else top_p,
        seed,
    )


def sample_key(seed: int, ids: Sequence[int], sample: int) -> bytes:
    """Return what the random numbers of one sample of one prompt are made from."""
    return blake2b(f"{seed}:{sample}:{','.join(map(str, ids))}".encode(), digest_size=32).digest()


def random_number(key: bytes, position: int) -> float:
    """Return the number in [0, 1) that draws the token at `position` of a sample, the first being 0.

    It is a hash of its arguments, so it is the same whatever else is drawn, and in which order.
    """
    hashed = blake2b(position.to_bytes(8, "little"), key=key, digest_size=8).digest()
    return (int.from_bytes(hashed, "little") >> (64 - _BITS)) / 2**_BITS


def draw_tokens(logits: torch.Tensor, numbers: Sequence[Sequence[float]], sampling: Sampling) -> list[list[int]]:
    """Return the tokens that random numbers draw from logits [N, V]: as many per row as it has numbers.

    A number draws the token in whose share of [0, 1) it lies, the shares laid side by side in the tokens' order
    (inversion, Devroye 1986, II.2). Raises ModelError where the logits are not numbers.
    """
    import torch  # on demand: settings are read without it

    probabilities = (logits.float() / sampling.temperature).softmax(-1)
    if sampling.top_p < 1:
        probabilities = _keep_likeliest(probabilities, sampling.top_p)
    reached = probabilities.cumsum(-1, dtype=torch.float64)
    total = reached[:, -1:]
    if not bool((total > 0).all()):
        raise ModelError(
            "the model's next-token scores are not numbers: its weights are damaged (or try --dtype float32)"
        )
    width = max(map(len, numbers))
    wanted = torch.tensor([[*row, *[0.0] * (width - len(row))] for row in numbers], dtype=torch.float64)
    found = torch.searchsorted(reached, wanted.to(reached.device) * total, right=True)
    tokens = found.clamp_(max=logits.shape[-1] - 1).tolist()  # a product may be rounded up to the total
    return [row[: len(asked)] for row, asked in zip(tokens, numbers, strict=True)]


def _keep_likeliest(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Return probabilities [N, V] with zeros for all tokens outside of the nucleus."""
    ordered = probabilities.topk(min(_LIKELIEST, probabilities.shape[-1])).values
    least = _find_least(ordered, top_p)
    if (short := ordered.sum(-1) < top_p).any():
        least[short] = _find_least(probabilities[short].sort(descending=True).values, top_p)
    return probabilities.masked_fill(probabilities < least, 0.0)


def _find_least(ordered: torch.Tensor, top_p: float) -> torch.Tensor:
    """Return the smallest probability [N, 1] that it takes to reach `top_p`; `ordered` [N, M] has the largest first."""
    before = ordered.cumsum(-1) - ordered
    return ordered.masked_fill(before >= top_p, 1.0).amin(-1, keepdim=True)
