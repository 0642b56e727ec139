"""Rank a pool by each selection there is: once per query where it looks at the query, else once per seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from promptkit.data.record import Record
from promptkit.data.records import hash_order
from promptkit.demonstrations.pool import Pool, Ranking, Strands, shuffled
from promptkit.errors import SelectionError, nearest
from promptkit.storage.parsing import parse_json


def deal_random(pool: Pool) -> Strands:
    """By the hash of (seed, record id): a shuffle that no other record has a say in."""
    return [pool.records]


def deal_balanced(pool: Pool) -> Strands:
    """One shuffled strand per label, the labels themselves in shuffled order.

    Raises SelectionError where records have no label among fixed ones.
    """
    by_label: dict[int, list[Record]] = {}
    for record in pool.given:
        if not isinstance(record.label, int) or record.choices is not None:
            raise SelectionError(
                "selection 'balanced' needs a task with fixed labels; "
                f"record {record.id!r} has none, use selection 'random'"
            )
        by_label.setdefault(record.label, []).append(record)
    labels = sorted(by_label, key=lambda label: hash_order(pool.seed, f"label {label}"))
    return [shuffled(by_label[label], pool.seed) for label in labels]


def deal_first(pool: Pool) -> Strands:
    """The pool as it comes."""
    return [pool.given]


def deal_pinned(pool: Pool) -> Strands:
    """The records of these ids, in this order: pinned:ID,ID,… (or a JSON list, where an id has a comma).

    Raises SelectionError without ids, and for one that is not in the pool or stands there twice.
    """
    by_id = {record.id: record for record in reversed(pool.given)}
    ids = _read_ids(pool.argument or "")
    for place, name in enumerate(ids):
        if name in ids[:place]:
            raise SelectionError(f"selection 'pinned' names record {name!r} twice; name every record once")
        if name not in by_id:
            raise SelectionError(
                f"selection 'pinned' names record {name!r}, which is not among the {len(by_id)} of the pool."
                f"{nearest(name, by_id)}"
            )
    return [[by_id[name] for name in ids]]


def _read_ids(text: str) -> list[str]:
    try:
        ids = parse_json(text) if text.startswith("[") else text.split(",")
    except ValueError:
        ids = None
    if not isinstance(ids, list) or not all(isinstance(name, str) and name for name in ids) or not ids:
        raise SelectionError(
            f"selection 'pinned' has {text!r} behind its colon; ids are expected, as in pinned:train-3,train-7"
        )
    return ids


def near_bm25(pool: Pool) -> Ranking:
    """Nearest to the query first, by BM25."""
    from promptkit.demonstrations.lexical import rank_bm25

    return rank_bm25(pool)


def near_tfidf(pool: Pool) -> Ranking:
    """Nearest to the query first, by the cosine of TF-IDF vectors."""
    from promptkit.demonstrations.vectors import rank_near

    return rank_near(pool, dense=False)


def near_dense(pool: Pool) -> Ranking:
    """Nearest to the query first, by the cosine of an encoder's vectors (Liu et al. 2022)."""
    from promptkit.demonstrations.vectors import rank_near

    return rank_near(pool, dense=True)


def near_mmr(pool: Pool) -> Ranking:
    """Near the query and unlike one another, by TF-IDF: maximal marginal relevance; mmr:SHARE of nearness (0.5)."""
    from promptkit.demonstrations.vectors import rank_mmr

    return rank_mmr(pool, dense=False)


def near_mmr_dense(pool: Pool) -> Ranking:
    """As mmr, by an encoder's vectors."""
    from promptkit.demonstrations.vectors import rank_mmr

    return rank_mmr(pool, dense=True)


def near_coverage(pool: Pool) -> Ranking:
    """Those that cover the query's words best together (Gupta et al. 2023, with BM25 weights)."""
    from promptkit.demonstrations.lexical import rank_coverage

    return rank_coverage(pool)


def near_longest_coverage(pool: Pool) -> Ranking:
    """Those that hold the query's longest runs of words, run by run (Levy et al. 2022)."""
    from promptkit.demonstrations.lexical import rank_longest_coverage

    return rank_longest_coverage(pool)


def deal_diverse(pool: Pool) -> Strands:
    """Each the least like any before it, by TF-IDF; the seed draws the first."""
    from promptkit.demonstrations.vectors import deal_diverse as deal

    return deal(pool, dense=False)


def deal_diverse_dense(pool: Pool) -> Strands:
    """As diverse, by an encoder's vectors."""
    from promptkit.demonstrations.vectors import deal_diverse as deal

    return deal(pool, dense=True)


def deal_kmeans(pool: Pool) -> Strands:
    """The middle of each cluster of k-means, by TF-IDF, largest cluster first; kmeans:CLUSTERS (8)."""
    from promptkit.demonstrations.vectors import deal_kmeans as deal

    return deal(pool, dense=False)


def deal_kmeans_dense(pool: Pool) -> Strands:
    """As kmeans, by an encoder's vectors (Zhang et al. 2022)."""
    from promptkit.demonstrations.vectors import deal_kmeans as deal

    return deal(pool, dense=True)


def deal_vote_k(pool: Pool) -> Strands:
    """Typical of the pool and unlike one another, by TF-IDF: fast vote-k; vote-k:NEIGHBOURS."""
    from promptkit.demonstrations.vectors import deal_vote_k as deal

    return deal(pool, dense=False)


def deal_vote_k_dense(pool: Pool) -> Strands:
    """As vote-k, by an encoder's vectors (Su et al. 2022)."""
    from promptkit.demonstrations.vectors import deal_vote_k as deal

    return deal(pool, dense=True)


def near_mdl(pool: Pool) -> Ranking:
    """Those that leave the model least uncertain of the answer (Wu et al. 2023), one by one; mdl:CANDIDATES (8)."""
    from promptkit.demonstrations.uncertainty import rank_mdl

    return rank_mdl(pool)


def deal_entropy(pool: Pool) -> Strands:
    """Those that the model is least certain of without demonstrations (Diao et al. 2023)."""
    from promptkit.demonstrations.uncertainty import deal_entropy as deal

    return deal(pool)


@dataclass(frozen=True)
class Selection:
    """A way to choose demonstrations, and all that the rest must know of it.

    `rank` deals the pool in strands once per seed, or returns what ranks it for each query where the selection goes
    `by_query`. `needs` names what it is given beside texts: "vectors" of an encoder, or "probabilities" of a model's
    answers. `takes_argument` says whether something may stand behind a colon, as in `kmeans:4`. `by_words` says
    whether nearness to a query is its BM25 score.
    """

    rank: Callable[[Pool], Strands | Ranking]
    by_query: bool = False
    takes_argument: bool = False
    by_words: bool = False
    needs: Literal["", "vectors", "probabilities"] = ""

    @property
    def about(self) -> str:
        """What it ranks by, in one line."""
        return (self.rank.__doc__ or "").strip().partition("\n")[0]


#: Every selection by its name; a further one is a function above and a line here.
SELECTIONS: dict[str, Selection] = {
    "random": Selection(deal_random),
    "balanced": Selection(deal_balanced),
    "first": Selection(deal_first),
    "pinned": Selection(deal_pinned, takes_argument=True),
    "bm25": Selection(near_bm25, by_query=True, by_words=True),
    "tfidf": Selection(near_tfidf, by_query=True),
    "dense": Selection(near_dense, by_query=True, needs="vectors"),
    "mmr": Selection(near_mmr, by_query=True, takes_argument=True),
    "mmr-dense": Selection(near_mmr_dense, by_query=True, takes_argument=True, needs="vectors"),
    "coverage": Selection(near_coverage, by_query=True, by_words=True),
    "longest-coverage": Selection(near_longest_coverage, by_query=True, by_words=True),
    "diverse": Selection(deal_diverse),
    "diverse-dense": Selection(deal_diverse_dense, needs="vectors"),
    "kmeans": Selection(deal_kmeans, takes_argument=True),
    "kmeans-dense": Selection(deal_kmeans_dense, takes_argument=True, needs="vectors"),
    "vote-k": Selection(deal_vote_k, takes_argument=True),
    "vote-k-dense": Selection(deal_vote_k_dense, takes_argument=True, needs="vectors"),
    "mdl": Selection(near_mdl, by_query=True, takes_argument=True, needs="probabilities"),
    "entropy": Selection(deal_entropy, needs="probabilities"),
}
