"""Rank records by the words they share with a query: BM25, and sets that cover the query together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy
from bm25s import BM25

from promptkit.data.record import Record
from promptkit.demonstrations.pool import Pool, Ranking, record_text, split_words
from promptkit.demonstrations.ranking import Floats, all_but, best_first, rounded, take_best

#: The longest run of words that `longest-coverage` looks for.
LONGEST = 8


class WordIndex:
    """The words of a pool's texts with their BM25 weights (k1 = 1.5, b = 0.75, Lucene's idf)."""

    def __init__(self, texts: list[str]) -> None:
        self.words = [split_words(text) for text in texts]
        self.known = {word for words in self.words for word in words}
        self._bm25 = BM25(method="lucene", dtype="float64")
        if self.known:
            self._bm25.index(self.words, show_progress=False)

    def nearness(self, query: Record) -> Floats:
        """Return the BM25 score [N] of every text for the query."""
        return rounded(self.scores(split_words(record_text(query))))

    def scores(self, words: list[str]) -> Floats:
        """Return the BM25 score [N] of every text for these words; 0 where none of them occurs."""
        known = [word for word in words if word in self.known]
        if not known:
            return numpy.zeros(len(self.words))
        return numpy.asarray(self._bm25.get_scores(known), dtype=numpy.float64)


def rank_bm25(pool: Pool) -> Ranking:
    """Return the ranking by BM25 score."""
    index = WordIndex(pool.texts)

    def rank(query: Record, hidden: frozenset[int]) -> Iterator[int]:
        yield from best_first(index.nearness(query), hidden)

    return rank


def rank_coverage(pool: Pool) -> Ranking:
    """Return the greedy ranking by how well those shown so far cover the query's words together.

    A word is covered as well as by the best of them, by its BM25 weight there; once nothing more can be covered,
    covering starts anew (the greedy set coverage of Gupta et al. 2023, with words in place of BERT's tokens).
    """
    index = WordIndex(pool.texts)

    def rank(query: Record, hidden: frozenset[int]) -> Iterator[int]:
        words = dict.fromkeys(split_words(record_text(query)))
        weights = numpy.array([index.scores([word]) for word in words]).reshape(len(words), len(pool.records))
        left, covered = all_but(len(pool.records), hidden), numpy.zeros((len(words), 1))
        while left.any():
            gains = rounded((weights - covered).clip(0).sum(0))
            if gains[left].max() == 0 and covered.any():
                covered = numpy.zeros_like(covered)
                continue
            best = take_best(gains, left)
            covered = numpy.maximum(covered, weights[:, [best]])
            yield best

    return rank


def rank_longest_coverage(pool: Pool) -> Ranking:
    """Return the ranking that covers the query's runs of words, longest first.

    For every run that is not covered yet the record with the highest BM25 score that holds it is shown; after the
    last run it begins anew with the first (Cover-LS of Levy et al. 2022, with runs of up to `LONGEST`
    words as local structures, BM25 as the retriever, and the query's own runs instead of predicted ones).
    """
    index = WordIndex(pool.texts)
    lines = [_line(words) for words in index.words]

    def rank(query: Record, hidden: frozenset[int]) -> Iterator[int]:
        words = split_words(record_text(query))
        runs = list(_runs(words))
        left = list(best_first(index.scores(words), hidden))
        while left:
            shown: list[int] = []
            for run in runs:
                if any(run in lines[place] for place in shown):
                    continue
                found = next((place for place in left if run in lines[place]), None)
                if found is not None:
                    left.remove(found)
                    shown.append(found)
                    yield found
            if not shown:
                yield from left
                return

    return rank


def _runs(words: list[str]) -> Iterator[str]:
    """Yield the runs of words, longest first and else from the left."""
    for length in range(min(LONGEST, len(words)), 0, -1):
        for start in range(len(words) - length + 1):
            yield _line(words[start : start + length])


def _line(words: list[str]) -> str:
    return f" {' '.join(words)} "
