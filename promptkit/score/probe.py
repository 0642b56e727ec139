"""A network into the fastest way it can be trusted to run: a few rows are scored each way, and compared."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy

from promptkit.cost import Shape
from promptkit.errors import ModelError
from promptkit.score.forward import Network
from promptkit.score.likelihood import Scoring, Usage, Way, prepare_scoring, run_batches, run_steps
from promptkit.score.tree import Step, Tokens, Tree, build_tree

_LENGTH = 64  # tokens of a row that are probed
_SHARED = 24  # of which the two rows share at most so many
_TOLERANCE = 1e-3  # in float32, relative to how much the scores vary; a wrong mask gives 0.1 and more
_HALF_TOLERANCE = 0.1  # in 16 bits
_NO_SHAPE = Shape(0, 0, 0, 0)

# what networks raise that were never meant to be called this way
_REFUSALS = (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError, NotImplementedError)


def choose_way(network: Network, tree: Tree, longest: int, batch_tokens: int) -> tuple[Way, str | None]:
    """Return how to run this network, and why it is not along the prefix tree, where it is not.

    A slower way is taken where the network refuses the faster one, or answers differently from one row at a time
    by more than rounding. longest: the tokens of the longest sequence that will be run.

    Raises ModelError for a network in which a token changes what comes before it.
    """
    limit = network.length_limit
    if limit is not None and longest > limit:
        return (
            Way.ALONE,
            f"{network.name} encodes positions differently beyond {limit} tokens: run one by one",
        )
    rows = _pick_rows(network, tree)
    if not rows:
        return Way.TREE, None
    alone = partial(run_batches, network, batch_tokens=0)
    wanted = _score(rows, alone)
    network.check_numbers(wanted.tolist())
    _check_causal(network, rows[0], wanted, alone)
    refused = network.unshared or _compare(network, rows, wanted, partial(_run_cut, network))
    if not refused:
        return Way.TREE, None
    note = f"what prompts share was computed again for each: {refused}"
    refused = _compare(network, rows, wanted, partial(run_batches, network, batch_tokens=batch_tokens))
    return (Way.ALONE, f"{note}; run one by one: {refused}") if refused else (Way.BATCHES, note)


def _pick_rows(network: Network, tree: Tree) -> list[Tokens]:
    """Return the longest row and a neighbour, cut short unless a layer's window calls for their full length."""
    rows, shared = tree.rows, tree.shared
    if not rows:
        return []
    longest = max(range(len(rows)), key=lambda row: len(rows[row]))
    neighbours = [row for row in (longest, longest + 1) if 0 < row < len(rows)]
    second = max(neighbours, key=lambda row: shared[row], default=0)
    pair = [rows[second], rows[second - 1]] if second else [rows[0]]
    if network.window is None or network.window >= len(rows[longest]):
        start = max(0, shared[second] - _SHARED)
        pair = [row[start : start + _LENGTH] for row in pair]
    return [row for row in pair if len(row) > 1]


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
    steps = [Step(None, 0, last, 0, cut), Step(0, 0, last, cut)] if cut else [Step(None, 0, last, 0)]
    run_steps(network, scoring, steps)


def _compare(network: Network, rows: list[Tokens], wanted: numpy.ndarray, run: Callable[[Scoring], None]) -> str | None:
    """Return why a way of running the network cannot be used, None where it can."""
    try:
        found = _score(rows, run)
    except _REFUSALS as error:
        return f"{network.name} raised {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if _differ(network, found, wanted):
        return f"{network.name} then differs by up to {abs(found - wanted).max():.2g} nats per token"
    return None


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
