"""Rank records by the cosines of their vectors: near the query, far from one another, or typical of the pool."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from typing import Any

import numpy

from promptkit.data.record import Record
from promptkit.data.records import hash_order
from promptkit.demonstrations.pool import Pool, Ranking, Remembered, Strands, record_text, split_words
from promptkit.demonstrations.ranking import Floats, all_but, best_first, rounded, take_best
from promptkit.errors import SelectionError

#: How much `mmr` weighs nearness to the query against distance from what is shown already.
MMR_SHARE = 0.5
#: Clusters of `kmeans`.
CLUSTERS = 8
#: Neighbours that a record votes for in `vote-k`, at most; in a small pool `VOTERS_SHARE` of it.
VOTES = 150
VOTES_SHARE = 1 / 20
#: By how much a vote of one who has been heard counts less.
HEARD = 10.0
_CELLS = 2**24  # cosines held at once: 128 MiB


class Vectors:
    """The texts of a pool as vectors of length 1: TF-IDF of their words, or what an encoder makes of them.

    Raises SelectionError where `dense` is asked for and there is no encoder, or it does not give a vector of
    finite numbers per text.
    """

    def __init__(self, pool: Pool, *, dense: bool) -> None:
        self.size = len(pool.records)
        self._embed = (pool.embed or _find_encoder()) if dense else None
        self._tfidf: Any = None
        self.rows: Any = numpy.zeros((self.size, 1))  # [N, D], dense or sparse
        if dense:
            self.rows = self._encode_dense(pool.texts)
        elif any(map(split_words, pool.texts)):
            from sklearn.feature_extraction.text import TfidfVectorizer

            self._tfidf = TfidfVectorizer(analyzer=split_words)
            self.rows = self._tfidf.fit_transform(pool.texts).tocsr()

    def cosines(self, query: Record) -> Floats:
        """Return the cosine [N] of every record with the query; 0 where one of them has nothing to compare."""
        if self._embed:
            return rounded(self.rows @ self._encode_dense([record_text(query)])[0])
        if self._tfidf:
            return rounded((self.rows @ self._tfidf.transform([record_text(query)]).T).toarray()[:, 0])
        return numpy.zeros(self.size)

    def between(self, first: int, last: int) -> Floats:
        """Return the cosines [last - first, N] of these records with all."""
        found = self.rows[first:last] @ self.rows.T
        return rounded(found.toarray() if self._tfidf else found)

    def _encode_dense(self, texts: list[str]) -> Floats:
        assert self._embed
        vectors = numpy.asarray(self._embed(texts), dtype=numpy.float64)
        if vectors.ndim != 2 or len(vectors) != len(texts) or not numpy.isfinite(vectors).all():
            raise SelectionError(
                f"`embed` gave an array of shape {list(vectors.shape)} for {len(texts)} texts; "
                "one vector of finite numbers per text is expected"
            )
        lengths = numpy.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / numpy.where(lengths > 0, lengths, 1.0)


def rank_near(pool: Pool, *, dense: bool) -> Ranking:
    """Return the ranking by cosine with the query (Liu et al. 2022, where dense)."""
    vectors = Vectors(pool, dense=dense)

    def rank(query: Record, hidden: frozenset[int]) -> Iterator[int]:
        yield from best_first(vectors.cosines(query), hidden)

    return rank


def rank_mmr(pool: Pool, *, dense: bool) -> Ranking:
    """Return the ranking by maximal marginal relevance (Carbonell & Goldstein 1998).

    Next comes the record with the highest share * cosine with the query - (1 - share) * highest cosine with one
    shown already.
    """
    vectors, share = Vectors(pool, dense=dense), pool.share(MMR_SHARE)

    def rank(query: Record, hidden: frozenset[int]) -> Iterator[int]:
        near, left = vectors.cosines(query), all_but(vectors.size, hidden)
        yield from _spread(vectors, share * near, 1 - share, left)

    return rank


def deal_diverse(pool: Pool, *, dense: bool) -> Strands:
    """Return the pool by distance: each next record is the one least like any before it; the seed draws the first.

    This is the "diversity" of Su et al. 2022 (farthest-first traversal).
    """
    vectors = Vectors(pool, dense=dense)
    places = _spread(vectors, numpy.zeros(vectors.size), 1.0, all_but(vectors.size, frozenset()))
    return [Remembered(pool.records[place] for place in places)]


def _spread(vectors: Vectors, worth: Floats, penalty: float, left: Any) -> Iterator[int]:
    """Yield the places `left`, each time the one of highest worth [N] less its penalty for likeness to those before."""
    likeness = None
    while left.any():
        best = take_best(worth if likeness is None else worth - penalty * likeness, left)
        yield best
        cosines = vectors.between(best, best + 1)[0]
        likeness = cosines if likeness is None else numpy.maximum(likeness, cosines)


def deal_kmeans(pool: Pool, *, dense: bool) -> Strands:
    """Return one strand per cluster of k-means, largest cluster first; within one, nearest to its centre first.

    The number of clusters is the argument, not k, so that k demonstrations are the first of k + 1; where it equals
    k, the demonstrations are those of Zhang et al. 2022 (Auto-CoT), without their limits on length.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    vectors, clusters = Vectors(pool, dense=dense), min(pool.number(CLUSTERS), len(pool.records))
    if not clusters:
        return []
    draw = int.from_bytes(hash_order(pool.seed, "k-means")[:4], "big")
    with threadpool_limits(1), warnings.catch_warnings():  # sums do not depend on the number of cores
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different texts than clusters: some stay empty
        fitted = KMeans(clusters, n_init=10, random_state=draw).fit(vectors.rows)
        distances = rounded(fitted.transform(vectors.rows))
    members: dict[int, list[int]] = {}
    for place, label in enumerate(fitted.labels_.tolist()):
        members.setdefault(label, []).append(place)
    strands = [sorted(places, key=lambda place: (distances[place, label], place)) for label, places in members.items()]
    strands.sort(key=lambda places: (-len(places), places[0]))
    return [[pool.records[place] for place in places] for places in strands]


def deal_vote_k(pool: Pool, *, dense: bool) -> Strands:
    """Return the pool by votes: every record votes for its nearest neighbours, less for each of them shown already.

    The next is the one with the most votes of records not shown yet, where a vote counts 10 to the power of minus
    how many of the voter's neighbours are shown (Su et al. 2022: the first step of vote-k, "fast
    vote-k"; the second, by a model's confidence, is left out).
    """
    vectors = Vectors(pool, dense=dense)
    default = min(VOTES, max(3, int(len(pool.records) * VOTES_SHARE)))
    places = _elect(_cast_votes(vectors, min(pool.number(default), len(pool.records) - 1)))
    return [Remembered(pool.records[place] for place in places)]


def _cast_votes(vectors: Vectors, count: int) -> Any:
    """Return a sparse [voters, candidates] with 1 for the `count` nearest of each; of equals, the first."""
    from scipy.sparse import csr_array

    chosen: list[Any] = []
    block = max(1, _CELLS // max(1, vectors.size))
    for first in range(0, vectors.size, block):
        cosines = vectors.between(first, min(first + block, vectors.size))
        for row, near in enumerate(cosines):
            near[first + row] = -numpy.inf
            chosen.append(_highest(near, count))
    columns = numpy.concatenate(chosen) if chosen else numpy.zeros(0, dtype=int)
    starts = numpy.arange(vectors.size + 1) * max(count, 0)
    return csr_array((numpy.ones(len(columns)), columns, starts), shape=(vectors.size, vectors.size))


def _highest(scores: Floats, count: int) -> Any:
    """Return the places of the `count` highest of scores [N], without sorting them; of equals, the first."""
    if count <= 0:
        return numpy.zeros(0, dtype=int)
    least = numpy.partition(scores, len(scores) - count)[len(scores) - count]
    above = numpy.flatnonzero(scores > least)
    return numpy.sort(numpy.concatenate([above, numpy.flatnonzero(scores == least)[: count - len(above)]]))


def _elect(votes: Any) -> Iterator[int]:
    """Yield the candidates of votes [voters, candidates], each time the one with the most."""
    by_candidate, left = votes.T.tocsr(), numpy.ones(votes.shape[0], dtype=bool)
    heard = numpy.zeros(len(left))
    while left.any():
        best = take_best(by_candidate @ (left * HEARD**-heard), left)
        heard[by_candidate[[best]].indices] += 1
        yield best


def _find_encoder() -> Any:
    """Return the sentence encoder, where it is installed."""
    if importlib.util.find_spec("sentence_transformers") is None:
        raise SelectionError(
            "a dense selection needs an encoder of texts: install sentence-transformers, or, in Python, give `embed`, "
            "such as promptkit.models.embedding.HiddenStates(model); without either, use bm25 or tfidf"
        )
    from promptkit.demonstrations.sentence_encoder import SentenceEncoder

    return SentenceEncoder()
