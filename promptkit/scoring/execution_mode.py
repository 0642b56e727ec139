"""Find the fastest mode in which a network can be trusted: two short rows are scored in each, and compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy

from promptkit.costs.flops import Shape
from promptkit.errors import ModelError
from promptkit.scoring.float32 import in_float32
from promptkit.scoring.forward import Network
from promptkit.scoring.log_likelihood import ExecutionMode, Scoring, Usage, prepare_scoring, run_batches, run_steps
from promptkit.scoring.prefix_tree import Tokens, TreeStep, build_tree

# Any text will do that gives every tokenizer a few dozen different tokens.
_TEXT = "It was a bright cold day in April, and the clocks were striking 13. What is 4 + 5, he said; no: 60-7? "
_LENGTH = 64  # tokens of a row that are probed
_OWN = 40  # of which the rows do not share so many
_TOLERANCE = 1e-3  # in float32, relative to how much the scores vary; a wrong mask gives 0.1 and more
_HALF_TOLERANCE = 0.1  # in 16 bits
_NO_SHAPE = Shape(0, 0, 0, 0)

# what networks raise that were never meant to be called this way
_REFUSALS = (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError, NotImplementedError)


@dataclass(frozen=True, slots=True)
class ModeCheck:
    """How to run a network, whether branches of a pass may attend apart, and what a reader should know of it."""

    way: ExecutionMode
    branches: bool = False
    notes: tuple[str, ...] = ()


_verdicts: WeakKeyDictionary[Any, dict[tuple[Any, ...], ModeCheck]] = WeakKeyDictionary()


def choose_way(network: Network, longest: int) -> ModeCheck:
    """Return how to run this network, and why it is not along the prefix tree, where it is not.

    A slower way is taken where the network refuses the faster one, or answers differently from one row at a time
    by more than rounding. longest: the tokens of the longest sequence that will be run. The same text is probed
    whatever is to be scored, once per network, so what is noted is the network's and no prompt's.

    Raises ModelError for a network in which a token changes what comes before it.
    """
    limit = network.length_limit
    if limit is not None and longest > limit:
        note = f"{network.name} encodes positions differently beyond {limit} tokens: run one by one"
        return ModeCheck(ExecutionMode.ALONE, notes=(note,))
    length = _LENGTH
    if network.window is not None and network.window < longest:  # what lies beyond a layer's window is seen, too
        length = min(longest, network.window + _LENGTH)
    known = _verdicts.setdefault(network.module, {})
    key = (length, network.model.dtype, network.model.device, network.config._attn_implementation)
    if key not in known:
        known[key] = _probe(network, length)
    network.branches = known[key].branches
    return known[key]


def _probe(network: Network, length: int) -> ModeCheck:
    rows = _make_rows(network, length)
    alone = partial(run_batches, network, batch_tokens=0)
    wanted = _score(rows, alone)
    network.check_numbers(wanted.tolist())
    _check_causal(network, rows[0], wanted, alone)
    rounding = _note_rounding(network, rows, wanted, alone)
    along_tree = partial(_compare, network, rows, wanted, partial(_run_cut, network))
    if not network.unshared and network.branches and not along_tree():
        return ModeCheck(ExecutionMode.TREE, branches=True, notes=rounding)
    network.branches = False
    refused = network.unshared or along_tree()
    if not refused:
        return ModeCheck(ExecutionMode.TREE, notes=rounding)
    note = f"what prompts share was computed again for each: {refused}"
    refused = _compare(network, rows, wanted, partial(run_batches, network, batch_tokens=2 * length))
    if refused:
        return ModeCheck(ExecutionMode.ALONE, notes=(f"{note}; run one by one: {refused}", *rounding))
    return ModeCheck(ExecutionMode.BATCHES, notes=(note, *rounding))


def _make_rows(network: Network, length: int) -> list[Tokens]:
    """Return two rows of tokens with a common beginning, the second shorter, for padding to show."""
    ids = [token for token in network.model.encoder.encode(_TEXT) if token < network.vocabulary] or [0]
    row = tuple((ids * (length // len(ids) + 1))[:length])
    own = min(_OWN, length // 2)
    return [row, row[:-own] + row[: -own - 1 : -1][: own - 5]]


def _score(rows: list[Tokens], run: Callable[[Scoring], None]) -> numpy.ndarray:
    """Return the log-likelihood of every token of the rows but their first."""
    sequences = [(row, 1) for row in rows]
    tree, row_of = build_tree([row[:-1] for row in rows])
    scoring = prepare_scoring(tree, row_of, sequences, Usage(_NO_SHAPE))
    run(scoring)
    return numpy.concatenate([numpy.array(scores) for scores in scoring.scores])


def _run_cut(network: Network, scoring: Scoring) -> None:
    """Run with half of what the rows share in a cache, and the rest branching behind it."""
    tree = scoring.tree
    last = len(tree.rows)
    cut = min(tree.shared[1:], default=len(tree.rows[0])) // 2
    steps = [TreeStep(None, 0, last, 0, cut), TreeStep(0, 0, last, cut)] if cut else [TreeStep(None, 0, last, 0)]
    run_steps(network, scoring, steps)


def _compare(network: Network, rows: list[Tokens], wanted: numpy.ndarray, run: Callable[[Scoring], None]) -> str | None:
    """Return why a way of running the network cannot be used, None where it can."""
    try:
        found = _score(rows, run)
    except _REFUSALS as error:
        return f"{network.name} raised {_say(error)}"
    if _differ(network, found, wanted):
        return f"{network.name} then differs by up to {abs(found - wanted).max():.2g} nats per token"
    return None


def _note_rounding(
    network: Network, rows: list[Tokens], wanted: numpy.ndarray, run: Callable[[Scoring], None]
) -> tuple[str, ...]:
    """Return how far 16-bit scores are from those of the same weights in float32; nothing in float32."""
    dtype = network.model.dtype
    if dtype == "float32":
        return ()
    try:
        with in_float32(network.module):
            exact = _score(rows, run)
    except _REFUSALS as error:
        return (f"{dtype}: how far scores are from float32 could not be measured ({_say(error)})",)
    apart = abs(wanted - exact)
    return (
        f"{dtype}: on {len(exact)} tokens of a probe text, log-likelihoods differ from float32 by "
        f"{apart.mean():.1g} nats per token on average, {apart.max():.1g} at most",
    )


def _check_causal(network: Network, row: Tokens, wanted: numpy.ndarray, run: Callable[[Scoring], None]) -> None:
    shorter = row[: max(2, len(row) // 2)]
    if _differ(network, _score([shorter], run), wanted[: len(shorter) - 1]):
        raise ModelError(
            f"model {network.model.name!r}: {network.name} is not causal: later tokens change the scores of "
            "earlier ones; use a model made to continue text (or set is_decoder in its config.json)"
        )


def _differ(network: Network, found: numpy.ndarray, wanted: numpy.ndarray) -> bool:
    """Whether two readings differ by more than rounding: root mean square, against how much they vary."""
    tolerance = _TOLERANCE if network.model.dtype == "float32" else _HALF_TOLERANCE
    difference = float(numpy.sqrt(numpy.mean((found - wanted) ** 2)))
    return not difference <= tolerance * max(float(numpy.std(wanted)), 0.05)  # also where it is NaN


def _say(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
