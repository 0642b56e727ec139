"""Every selection against a plain reference on small pools, and what must hold for all of them."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptkit.building.build import Demonstrations
from promptkit.data.record import Record
from promptkit.data.records import hash_order
from promptkit.demonstrations import SELECTIONS, Draw, Selector
from promptkit.demonstrations.pool import Asked
from promptkit.errors import SelectionError

WORDS = ["red", "green", "blue", "grey", "warm", "cold", "film", "song", "the", "a"]
sentences = st.lists(st.sampled_from(WORDS), max_size=7).map(" ".join)
seeds = st.integers(0, 2**32)
#: The first example of a process waits for scikit-learn to load.
quietly = settings(deadline=None, max_examples=40)
ALL = [f"{name}:r1,r0" if name == "pinned" else name for name in SELECTIONS]


def make_pool(texts: Sequence[str], *, unlike: bool = False) -> list[Record]:
    """Records of two labels with these texts; made `unlike` by a number at their end."""
    return [
        Record(f"r{number}", {"text": f"{text} n{number}" if unlike else text}, number % 2)
        for number, text in enumerate(texts)
    ]


pools = st.lists(sentences, min_size=3, max_size=9)
QUERY = Record("query", {"text": "the warm red film"}, 1, "because")


def embed(texts: Sequence[str]) -> list[list[float]]:
    """Vectors [texts, 4] that differ wherever texts do."""
    return [[byte - 127.0 for byte in hashlib.sha256(text.encode()).digest()[:4]] for text in texts]


def probabilities(asked: Sequence[Asked]) -> list[list[float]]:
    """Distributions over two choices that depend on the query's text and the sequence of demonstrations."""
    assert all(query.label is None and query.rationale is None for query, _ in asked), "the answer was leaked"
    shares = [
        (hash_order(query.fields["text"], ",".join(record.id for record in shown))[0] + 0.5) / 256
        for query, shown in asked
    ]
    return [[share, 1 - share] for share in shares]


def selector(pool: Sequence[Record], selection: str, seed: int = 0) -> Selector:
    """A selector that has all it may ask for."""
    return Selector(pool, selection, seed, embed=embed, probabilities=probabilities)


def ids(records: Sequence[Record]) -> list[str]:
    """The ids of records."""
    return [record.id for record in records]


def places(selection: str, pool: Sequence[Record], query: Record = QUERY, seed: int = 0) -> list[int]:
    """The selection's whole ranking as places in the pool sorted by the hash of (seed, id)."""
    where = {record.id: place for place, record in enumerate(canonical(pool, seed))}
    count = sum(record.fields != query.fields for record in pool)
    return [where[name] for name in ids(selector(pool, selection, seed).select(query, count))]


def canonical(pool: Sequence[Record], seed: int = 0) -> list[Record]:
    """The pool in the sequence that decides between equals."""
    return sorted(pool, key=lambda record: hash_order(seed, record.id))


def texts_of(pool: Sequence[Record]) -> list[str]:
    """The texts of the pool in that sequence."""
    return [record.fields["text"] for record in canonical(pool)]


def by_score(scores: Sequence[float]) -> list[int]:
    """Places by their score, highest first; of equals the first."""
    return sorted(range(len(scores)), key=lambda place: (-round(scores[place], 9), place))


# Reference measures, written out.


def bm25(texts: Sequence[str], query: Sequence[str]) -> list[float]:
    """BM25 with Lucene's idf (Kamphuis et al. 2020, table 1), k1 = 1.5, b = 0.75."""
    words = [text.split() for text in texts]
    mean = sum(map(len, words)) / len(words)
    scores = []
    for each in words:
        total = 0.0
        for word in query:
            holding = sum(word in other for other in words)
            idf = math.log(1 + (len(words) - holding + 0.5) / (holding + 0.5))
            count = each.count(word)
            total += idf * count / (count + 1.5 * (0.25 + 0.75 * len(each) / mean)) if count else 0.0
        scores.append(total)
    return scores


def tfidf(texts: Sequence[str]) -> Callable[[str], dict[str, float]]:
    """Return what turns a text into its TF-IDF vector of length 1."""
    words = [text.split() for text in texts]

    def vector(text: str) -> dict[str, float]:
        counts = Counter(word for word in text.split() if any(word in other for other in words))
        weights = {
            word: count * (math.log((1 + len(words)) / (1 + sum(word in other for other in words))) + 1)
            for word, count in counts.items()
        }
        length = math.sqrt(sum(weight**2 for weight in weights.values())) or 1.0
        return {word: weight / length for word, weight in weights.items()}

    return vector


def cosines(texts: Sequence[str], query: str | None = None) -> list[list[float]]:
    """TF-IDF cosines of all texts with all (or with the query alone)."""
    vector = tfidf(texts)
    others = [vector(text) for text in texts]
    rows = [vector(query)] if query is not None else others
    return [
        [round(sum(weight * other.get(word, 0.0) for word, weight in row.items()), 9) for other in others]
        for row in rows
    ]


# What must hold for every selection.


@quietly
@given(pools, seeds, st.sampled_from(ALL), st.data())
def test_k_demonstrations_are_the_first_of_k_plus_one(
    texts: list[str], seed: int, selection: str, data: st.DataObject
) -> None:
    """Every selection is nested, also for a query out of the pool."""
    pool = make_pool(texts, unlike=True)
    query = data.draw(st.sampled_from([*pool[2:], QUERY]))
    most = 2 if selection.startswith("pinned") else len(pool) - 1
    ranked = selector(pool, selection, seed)
    shown = [ids(ranked.select(query, k)) for k in range(most + 1)]
    assert all(fewer == more[:-1] for fewer, more in itertools.pairwise(shown))


@quietly
@given(pools, seeds, st.sampled_from(ALL[:3] + ALL[4:]), st.data())
def test_query_is_never_shown_and_every_other_record_once(
    texts: list[str], seed: int, selection: str, data: st.DataObject
) -> None:
    """Neither the query nor its twin is among its demonstrations, and asking for all others gives them all."""
    pool = make_pool(texts, unlike=True)
    query = data.draw(st.sampled_from(pool))
    for asked in (query, Record("twin", query.fields, None)):
        shown = selector(pool, selection, seed).select(asked, len(pool) - 1)
        assert sorted(ids(shown)) == sorted(record.id for record in pool if record.id != query.id)


@quietly
@given(pools, seeds, st.sampled_from([name for name in ALL if name != "first"]), st.randoms(use_true_random=False))
def test_draw_does_not_depend_on_the_pools_order(texts: list[str], seed: int, selection: str, random: object) -> None:
    """A shuffled pool gives the same draw, among records that are equally near too."""
    pool = make_pool(texts)
    mixed = list(pool)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    query = Record("query", {"text": "the warm cold song"}, None)
    k = 2 if selection.startswith("pinned") else sum(record.fields != query.fields for record in pool)
    assert selector(pool, selection, seed).select(query, k) == selector(mixed, selection, seed).select(query, k)


@pytest.mark.parametrize("selection", ALL)
def test_the_querys_answer_has_no_say(selection: str) -> None:
    """Another label and rationale of the query change nothing, and what a model is asked does not hold them."""
    pool = make_pool(["the warm film", "a cold song", "red red film", "grey", "the film"])
    other = replace(QUERY, label=0, rationale="another")
    ranked = selector(pool, selection)
    assert ranked.select(QUERY, 2) == ranked.select(other, 2) == selector(pool, selection).select(other, 2)


@pytest.mark.parametrize("selection", ["bm25", "tfidf", "dense", "mmr", "coverage", "longest-coverage", "mdl"])
def test_a_query_hidden_from_its_own_ranking_does_not_steer_it(selection: str) -> None:
    """A query out of the pool is gone before the others are ranked: greedy choices do not start from it."""
    pool = make_pool(["the warm film", "a warm film", "warm red song", "grey song", "the blue film a"])
    inside = pool[0]
    ranked = selector(pool, selection)
    hidden = next(place for place, record in enumerate(ranked.pool.records) if record is inside)
    expected = ranked._ranked(replace(inside, label=None), frozenset({hidden}))  # type: ignore[operator]
    assert list(ranked.select(inside, 4)) == [ranked.pool.records[place] for place in expected]


@pytest.mark.parametrize("selection", ALL)
def test_texts_without_words_can_be_ranked(selection: str) -> None:
    """Empty texts, and an empty query, are no error."""
    pool = make_pool(["", "!", "?", "…"])
    assert len(selector(pool, selection).select(Record("q", {"text": "."}, None), 2)) == 2


# Each selection against its reference.


@quietly
@given(pools, sentences)
def test_bm25_equals_the_formula(texts: list[str], query: str) -> None:
    """The ranking is that of BM25 scores computed one by one."""
    pool, asked = make_pool(texts), Record("query", {"text": query + " zebra"}, None)
    expected = by_score(bm25(texts_of(pool), asked.fields["text"].split())) if any(texts) else list(range(len(pool)))
    assert places("bm25", pool, asked) == expected


@quietly
@given(pools, sentences)
def test_tfidf_equals_the_formula(texts: list[str], query: str) -> None:
    """The ranking is that of TF-IDF cosines computed one by one."""
    pool, asked = make_pool(texts), Record("query", {"text": query + " zebra"}, None)
    assert places("tfidf", pool, asked) == by_score(cosines(texts_of(pool), asked.fields["text"])[0])


def test_dense_goes_by_the_cosine_not_the_length() -> None:
    """Vectors are compared by their direction; one without a direction is like nothing."""
    vectors = {"far": [1.0, 9.0], "near": [0.2, 0.1], "nothing": [0.0, 0.0], "against": [-1.0, 0.0], "?": [3.0, 0.0]}
    pool = [Record(name, {"text": name}, 0) for name in vectors if name != "?"]
    ranked = Selector(pool, "dense", embed=lambda texts: [vectors[text] for text in texts])
    shown = ids(ranked.select(Record("q", {"text": "?"}, None), 4))
    assert shown == ["near", "far", "nothing", "against"]


@quietly
@given(pools, st.sampled_from(["", ":0", ":0.3", ":1"]))
def test_mmr_equals_the_definition(texts: list[str], argument: str) -> None:
    """Each next record has the best share of nearness less likeness to those before it."""
    pool, share = make_pool(texts), float(argument[1:] or 0.5)
    near, between = cosines(texts_of(pool), QUERY.fields["text"])[0], cosines(texts_of(pool))
    left, shown = list(range(len(pool))), list[int]()
    while left:
        worth = [share * near[c] - (1 - share) * max((between[c][s] for s in shown), default=0.0) for c in left]
        shown.append(left.pop(by_score(worth)[0]))
    assert places("mmr" + argument, [r for r in pool if r.fields != QUERY.fields]) == shown


@quietly
@given(pools)
def test_diverse_equals_the_definition(texts: list[str]) -> None:
    """Each next record has the lowest likeness to the one before it that is most like it."""
    pool = make_pool(texts, unlike=True)
    between = cosines(texts_of(pool))
    shown, left = [0], list(range(1, len(pool)))
    while left:
        shown.append(left.pop(by_score([-max(between[c][s] for s in shown) for c in left])[0]))
    assert places("diverse", pool) == shown


@quietly
@given(pools, sentences)
def test_coverage_equals_the_definition(texts: list[str], query: str) -> None:
    """Each next record raises the sum over the query's words of their best weight most; then it begins anew."""
    pool, words = make_pool(texts), list(dict.fromkeys(query.split()))
    asked = Record("query", {"text": query + " zebra"}, None)
    weights = [bm25(texts_of(pool), [word]) if any(texts) else [0.0] * len(pool) for word in words]

    def covered(shown: list[int]) -> float:
        return round(sum(max(row[place] for place in shown) for row in weights), 9)

    left, shown, round_ = list(range(len(pool))), list[int](), list[int]()
    while left:
        best = min(left, key=lambda place: (-covered([*round_, place]), place))
        if round_ and covered([*round_, best]) <= covered(round_):
            round_ = []
            continue
        left.remove(best)
        shown.append(best)
        round_.append(best)
    assert places("coverage", pool, asked) == shown


def test_coverage_takes_what_is_missing_over_what_is_nearest() -> None:
    """After one record has covered a word, the next covers another, though a nearer one is left."""
    pool = make_pool(["red film red film", "red film", "blue song", "grey"])
    query = Record("q", {"text": "red film song"}, None)
    assert ids(selector(pool, "bm25").select(query, 2)) == ["r0", "r1"]
    assert set(ids(selector(pool, "coverage").select(query, 2))) in ({"r0", "r2"}, {"r1", "r2"})


@quietly
@given(pools, sentences)
def test_longest_coverage_equals_the_definition(texts: list[str], query: str) -> None:
    """Run by run, longest first, the best record that holds it, unless one shown in this round does."""
    pool, words = make_pool(texts), [*query.split(), "zebra"]
    lists = [text.split() for text in texts_of(pool)]
    left = by_score(bm25(texts_of(pool), words)) if any(texts) else list(range(len(pool)))

    def holds(place: int, run: list[str]) -> bool:
        return any(lists[place][at : at + len(run)] == run for at in range(len(lists[place])))

    runs = [words[at : at + size] for size in range(8, 0, -1) for at in range(len(words) - size + 1)]
    shown: list[int] = []
    while left:
        this_round: list[int] = []
        for run in runs:
            found = [place for place in left if holds(place, run)]
            if found and not any(holds(place, run) for place in this_round):
                this_round.append(found[0])
                left.remove(found[0])
        shown += this_round
        if not this_round:
            shown += left
            break
    assert places("longest-coverage", pool, Record("query", {"text": " ".join(words)}, None)) == shown


@quietly
@given(st.lists(sentences, min_size=3, max_size=14), st.integers(1, 5))
def test_vote_k_equals_the_definition(texts: list[str], neighbours: int) -> None:
    """Each next record has the most votes of those not shown, a vote a tenth for each time its voter was heard."""
    pool = make_pool(texts, unlike=True)
    between, count = cosines(texts_of(pool)), len(pool)
    votes = {
        voter: set([place for place in by_score(between[voter]) if place != voter][:neighbours])
        for voter in range(count)
    }
    left, shown = list(range(count)), list[int]()
    while left:
        scores = [sum(10.0 ** -len(votes[v] & set(shown)) for v in left if c in votes[v]) for c in left]
        shown.append(left.pop(by_score(scores)[0]))
    assert places(f"vote-k:{neighbours}", pool) == shown


@pytest.mark.parametrize("clusters", [1, 2, 3])
def test_kmeans_finds_the_best_clusters_and_deals_their_middles(clusters: int) -> None:
    """Of all ways to part the pool, that of least squared distance; from each part what is nearest to its mean."""
    points = {
        "a": (1.0, 0.0),
        "b": (0.99, 0.1),
        "c": (0.9, 0.3),
        "d": (0.0, 1.0),
        "e": (0.05, 0.99),
        "f": (-1.0, 0.0),
        "g": (0.2, 0.9),
    }
    unit = {name: [value / math.hypot(*point) for value in point] for name, point in points.items()}
    pool = [Record(name, {"text": name}, 0) for name in points]

    def mean(part: Sequence[str]) -> list[float]:
        return [sum(unit[name][axis] for name in part) / len(part) for axis in (0, 1)]

    def inertia(parts: Sequence[Sequence[str]]) -> float:
        return sum(math.dist(unit[name], mean(part)) ** 2 for part in parts for name in part)

    ways = []
    for labels in itertools.product(range(clusters), repeat=len(points)):
        parts = [
            [name for name, label in zip(points, labels, strict=True) if label == each] for each in range(clusters)
        ]
        if all(parts):
            ways.append(parts)
    best = min(ways, key=inertia)
    middles = {min(part, key=lambda name: math.dist(unit[name], mean(part))) for part in best}
    ranked = Selector(pool, f"kmeans-dense:{clusters}", 3, embed=lambda texts: [points[text] for text in texts])
    shown = ids(ranked.select(QUERY, len(pool)))
    assert set(shown[:clusters]) == middles
    assert len(next(part for part in best if shown[0] in part)) == max(map(len, best))
    assert sorted(shown) == sorted(points)


def test_kmeans_of_fewer_texts_than_clusters() -> None:
    """Clusters that stay empty are no error, and every record is dealt once."""
    pool = make_pool(["red film"] * 6)
    assert sorted(ids(selector(pool, "kmeans:4").select(QUERY, 6))) == sorted(ids(pool))


@quietly
@given(pools, st.integers(1, 4))
def test_mdl_equals_the_definition(texts: list[str], candidates: int) -> None:
    """Among the nearest, each next is the one that leaves the answer's distribution with the least entropy."""
    pool = make_pool(texts, unlike=True)
    records = canonical(pool)
    nearest = by_score(cosines(texts_of(pool), QUERY.fields["text"])[0])
    left, shown = nearest[:candidates], list[int]()
    query = replace(QUERY, label=None, rationale=None)
    while left:

        def codelength(place: int, shown: Sequence[int] = tuple(shown)) -> float:
            found = probabilities([(query, tuple(records[each] for each in (*shown, place)))])[0]
            return round(-sum(p * math.log(p) for p in found), 9)

        shown.append(min(left, key=codelength))
        left.remove(shown[-1])
    assert places(f"mdl:{candidates}", pool) == shown + nearest[candidates:]


def test_mdl_asks_no_more_than_it_must() -> None:
    """Choosing one of three candidates takes three questions; what is not asked for is not tried."""
    questions: list[int] = []

    def counted(asked: Sequence[Asked]) -> list[list[float]]:
        questions.append(len(asked))
        return probabilities(asked)

    ranked = Selector(make_pool(WORDS), "mdl:3", probabilities=counted)
    ranked.select(QUERY, 1)
    assert questions == [3]
    ranked.select(QUERY, 2)
    assert questions == [3, 3, 2]


@quietly
@given(pools)
def test_entropy_equals_the_definition(texts: list[str]) -> None:
    """Records stand by the entropy of what the model says without demonstrations, highest first."""
    pool = make_pool(texts, unlike=True)
    rows = probabilities([(replace(record, label=None), ()) for record in canonical(pool)])
    assert places("entropy", pool) == by_score([-sum(p * math.log(p) for p in row) for row in rows])


def test_pinned_shows_the_named_records_in_their_sequence() -> None:
    """Ids stand behind the colon, separated by commas or as a JSON list; the query is passed over."""
    pool = [*make_pool(["x", "y", "z"]), Record("a,b", {"text": "w"}, 0)]
    assert ids(Selector(pool, "pinned:r2,r0").select(QUERY, 2)) == ["r2", "r0"]
    assert ids(Selector(pool, 'pinned:["a,b","r1"]').select(QUERY, 2)) == ["a,b", "r1"]
    assert ids(Selector(pool, "pinned:r2,r0").select(pool[2], 1)) == ["r0"]
    with pytest.raises(SelectionError, match="'pinned' names there are 1 besides the query 'r2'; lower k or name more"):
        Selector(pool, "pinned:r2,r0").select(pool[2], 2)


@pytest.mark.parametrize(
    ("selection", "says"),
    [
        ("pinned", "ids are expected, as in pinned:train-3,train-7"),
        ("pinned:r0,,r1", "ids are expected"),
        ('pinned:["r0"', "ids are expected"),
        ("pinned:[1]", "ids are expected"),
        ("pinned:r0,r0", "names record 'r0' twice"),
        ("pinned:r10", "names record 'r10', which is not among the 2 of the pool. Did you mean 'r1'?"),
        ("random:3", "selection 'random' takes nothing behind a colon, found '3'; only pinned, mmr"),
        ("kmeans:0", "a selection's number is '0'; a whole number from 1 is expected"),
        ("vote-k:²", "a selection's number is '²'; a whole number from 1 is expected"),
        ("mmr:2", "a selection's share is '2'; a number from 0 to 1 is expected"),
        ("mmr:nan", "a selection's share is 'nan'; a number from 0 to 1 is expected"),
        ("mmr:half", "a selection's share is 'half'; a number from 0 to 1 is expected"),
        ("bm52", "unknown selection 'bm52'; known: random"),
    ],
)
def test_wrong_arguments_are_explained(selection: str, says: str) -> None:
    """What stands behind the colon, and what is expected there, is in the message."""
    with pytest.raises(SelectionError) as caught:
        selector(make_pool(["x", "y"]), selection)
    assert says in str(caught.value)


@pytest.mark.parametrize("selection", ["mdl", "entropy"])
def test_selections_that_ask_a_model_say_so(selection: str) -> None:
    """Without a callable the error names it, and what can be used instead."""
    with pytest.raises(SelectionError, match=rf"selection '{selection}' asks a model.*`probabilities`.*use bm25"):
        Selector(make_pool(["x", "y"]), selection)


@pytest.mark.parametrize("selection", ["dense", "mmr-dense", "diverse-dense", "kmeans-dense", "vote-k-dense"])
def test_dense_selections_need_an_encoder(selection: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without sentence-transformers and without `embed` the error names both."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SelectionError, match="install sentence-transformers, or, in Python, give `embed`"):
        Selector(make_pool(["x", "y"]), selection)


@pytest.mark.parametrize("answer", [[[0.5, 0.5]], [[0.5, 0.5], []], [[0.5, 0.5], [1.5, -0.5]], [[0.5], [math.nan]]])
def test_answers_that_are_no_probabilities_are_refused(answer: list[list[float]]) -> None:
    """One distribution per question is expected of a model."""
    with pytest.raises(SelectionError, match=r"answers to 2 questions|as the probabilities of a query's choices"):
        Selector(make_pool(["x", "y"]), "entropy", probabilities=lambda asked: answer)


@pytest.mark.parametrize("vectors", [[1.0, 2.0], [[1.0]], [[1.0], [math.inf]]])
def test_vectors_that_are_none_are_refused(vectors: object) -> None:
    """One finite vector per text is expected of an encoder."""
    with pytest.raises(SelectionError, match="one vector of finite numbers per text is expected"):
        Selector(make_pool(["x", "y"]), "dense", embed=lambda texts: vectors)  # type: ignore[arg-type,return-value]


def test_nearest_orders_put_the_nearest_at_one_end() -> None:
    """By TF-IDF, whatever the selection; the same records, from either end."""
    pool = make_pool(["grey", "the warm red film", "warm film", "the song"])
    query = Record("q", {"text": "a warm red film"}, None)

    def shown(order: str, selection: str = "first") -> list[str]:
        return ids(Demonstrations(pool, Draw(selection, order), embed=embed)(query, 3))

    assert shown("nearest-first") == ["r1", "r2", "r0"]
    assert shown("nearest-last") == ["r0", "r2", "r1"]
    assert shown("given") == ["r0", "r1", "r2"]


@pytest.mark.parametrize("selection", ["bm25", "tfidf", "dense"])
def test_nearness_is_the_selections_own_measure(selection: str) -> None:
    """Those chosen by nearness stand nearest first as they were chosen, whatever the measure."""
    pool = make_pool(["film film film a", "the warm red film song grey", "warm", "red film", "blue red"])
    given = Demonstrations(pool, Draw(selection, "given"), embed=embed)(QUERY, 4)
    assert Demonstrations(pool, Draw(selection, "nearest-first"), embed=embed)(QUERY, 4) == given
    assert Demonstrations(pool, Draw(selection, "nearest-last"), embed=embed)(QUERY, 4) == given[::-1]
