"""Rank records by how sure a model is of an answer, from the probabilities of the choices alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from promptkit.data.record import Record
from promptkit.demonstrations.pool import Asked, Pool, Probabilities, Ranking, Strands, as_query
from promptkit.errors import SelectionError

#: How many of the nearest records `mdl` tries for every demonstration.
CANDIDATES = 8
_DECIMALS = 9


def entropy(probabilities: Sequence[float]) -> float:
    """Return the entropy in nats of one distribution [V]; 0 log 0 is 0.

    Raises SelectionError where there is nothing to be uncertain about, or a number is no probability.
    """
    if not probabilities or not all(0 <= p <= 1 + 1e-6 for p in probabilities):
        raise SelectionError(
            f"found {list(probabilities)!r} as the probabilities of a query's choices; one number from 0 to 1 per "
            "choice is expected (a task whose answer is free text has no choices)"
        )
    return -math.fsum(p * math.log(p) for p in probabilities if p > 0)


def rank_mdl(pool: Pool) -> Ranking:
    """Return the greedy ranking that leaves the model least uncertain of the query's answer.

    Out of the nearest by TF-IDF, as many as the argument says, each next demonstration is the one with which, after
    those chosen before it, the entropy of the choices is lowest: the expected codelength of the answer, Wu et al.
    2023, who compare whole drawn sequences instead; choosing one by one is what makes k a prefix of
    k + 1. Behind these come the other records, nearest first.
    """
    from promptkit.demonstrations.vectors import rank_near

    probabilities, near, count = need_probabilities(pool, "mdl"), rank_near(pool, dense=False), pool.number(CANDIDATES)

    def rank(query: Record, hidden: frozenset[int]) -> Iterator[int]:
        nearest = list(near(query, hidden))
        left, chosen = nearest[:count], tuple[Record, ...]()
        while left:
            tried: list[Asked] = [(query, (*chosen, pool.records[place])) for place in left]
            uncertain = measure(probabilities, tried) if len(left) > 1 else [0.0]
            best = left.pop(uncertain.index(min(uncertain)))
            chosen = (*chosen, pool.records[best])
            yield best
        yield from nearest[count:]

    return rank


def deal_entropy(pool: Pool) -> Strands:
    """Return the pool by how uncertain the model is of each record without demonstrations, most uncertain first.

    Diao et al. 2023 (Active-Prompt), with the entropy of the choices' probabilities.
    """
    asked: list[Asked] = [(as_query(record), ()) for record in pool.records]
    uncertain = measure(need_probabilities(pool, "entropy"), asked)
    places = sorted(range(len(asked)), key=lambda place: (-uncertain[place], place))
    return [[pool.records[place] for place in places]]


def measure(probabilities: Probabilities, asked: Sequence[Asked]) -> list[float]:
    """Return the entropy, in nats to nine places, of every query's choices; raises SelectionError."""
    found = probabilities(asked)
    if len(found) != len(asked):
        raise SelectionError(f"`probabilities` gave {len(found)} answers to {len(asked)} questions; one each is needed")
    return [round(entropy(row), _DECIMALS) for row in found]


def need_probabilities(pool: Pool, selection: str) -> Probabilities:
    """Return the pool's `probabilities`; raises SelectionError where there are none."""
    if pool.probabilities is None:
        raise SelectionError(
            f"selection {selection!r} asks a model: in Python, give `probabilities`, such as "
            "promptkit.scoring.order_search.ChoiceProbabilities(bound, score); without a model, use bm25 or tfidf"
        )
    return pool.probabilities
