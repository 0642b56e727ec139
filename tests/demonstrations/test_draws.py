"""Selection and order: what must hold for any pool, seed, query and k."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptkit.building.build import Demonstrations
from promptkit.data.record import Record
from promptkit.demonstrations import Draw, Selector
from promptkit.demonstrations.orders import (
    ORDERS,
    all_orders,
    order_demonstrations,
    permute,
    sample_orders,
)
from promptkit.demonstrations.pool import Pool
from promptkit.errors import SelectionError

LABELS = 3


def record(number: int, label: int = 0) -> Record:
    """A record whose text is its number."""
    return Record(id=f"train-{number}", fields={"text": str(number)}, label=label)


pools = st.lists(st.integers(0, LABELS - 1), min_size=2, max_size=25).map(
    lambda labels: [record(number, label) for number, label in enumerate(labels)]
)
seeds = st.integers(0, 2**32)
selections = st.sampled_from(["random", "balanced", "first"])  # all of them: test_select.py


@given(pools, seeds, selections, st.data())
def test_k_demonstrations_are_the_first_of_k_plus_one(
    pool: list[Record], seed: int, selection: str, data: st.DataObject
) -> None:
    """Draws are nested: fewer demonstrations are a prefix of more under the same seed."""
    k = data.draw(st.integers(0, len(pool) - 2))
    selector, query = Selector(pool, selection, seed), pool[data.draw(st.integers(0, len(pool) - 1))]
    assert selector.select(query, k + 1)[:k] == selector.select(query, k)


@given(pools, seeds, selections, st.data())
def test_query_is_never_its_own_demonstration(
    pool: list[Record], seed: int, selection: str, data: st.DataObject
) -> None:
    """Neither the query's id nor its very text is shown; every other record is, once."""
    query = data.draw(st.sampled_from(pool))
    twin = Record(id="test-0", fields=query.fields, label=None)
    for asked in (query, twin):
        shown = Selector(pool, selection, seed).select(asked, len(pool) - 1)
        assert sorted(r.id for r in shown) == sorted(r.id for r in pool if r.id != query.id)


@given(pools, seeds, st.sampled_from(["random", "balanced"]), st.randoms())
def test_draw_does_not_depend_on_the_pools_order(pool: list[Record], seed: int, selection: str, random: object) -> None:
    """A shuffled pool gives the same draw: it is a function of the records, not of their places."""
    shuffled = list(pool)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    query = Record(id="test-0", fields={"text": "query"}, label=None)
    k = len(pool)
    assert Selector(pool, selection, seed).select(query, k) == Selector(shuffled, selection, seed).select(query, k)


@given(pools, seeds, st.data())
def test_draw_does_not_depend_on_other_queries(pool: list[Record], seed: int, data: st.DataObject) -> None:
    """A query gets the same demonstrations alone, in a batch, and in any order of queries."""
    draw = Draw("random", "shuffled", seed, seed)
    queries = data.draw(st.permutations(pool))
    together = Demonstrations(pool, draw)
    k = len(pool) - 1
    assert {q.id: together(q, k) for q in queries} == {q.id: Demonstrations(pool, draw)(q, k) for q in pool}


@given(st.integers(1, 8), st.integers(0, 10), seeds)
def test_balanced_shows_labels_equally_often(per_label: int, k: int, seed: int) -> None:
    """Label counts differ by one at most while every label has records left, also without the query."""
    pool = [record(number, number % LABELS) for number in range(per_label * LABELS)]
    k = min(k, (per_label - 1) * LABELS)
    shown = Selector(pool, "balanced", seed).select(pool[0], k)
    counts = Counter(r.label for r in shown)
    assert max(counts.values(), default=0) - min((counts[label] for label in range(LABELS)), default=0) <= 1


@given(pools, seeds, st.sampled_from(sorted(ORDERS)))
def test_order_permutes_and_never_replaces(pool: list[Record], seed: int, order: str) -> None:
    """Whatever the order and its seed, the demonstrations are the same ones."""
    near = [(seed + len(r.id)) % 3 for r in pool] if seed % 2 else None
    ordered = order_demonstrations(pool, order, seed=seed, near=near)
    assert sorted(r.id for r in ordered) == sorted(r.id for r in pool)


@given(st.integers(0, 5))
def test_numbers_name_every_permutation_once(k: int) -> None:
    """The numbers 0 to k! - 1 are all the permutations, 0 the given one, in lexicographic order."""
    chosen = [record(number) for number in range(k)]
    found = [tuple(r.id for r in permute(chosen, number)) for number in range(math.factorial(k))]
    assert found == sorted(set(found))
    assert found[0] == tuple(r.id for r in chosen)


def test_named_orders_do_what_they_say() -> None:
    """Reversed turns round, by-label groups in the task's order and keeps the rest as selected."""
    chosen = [record(0, 1), record(1, 0), record(2, 1), record(3, 0)]

    def ids(order: str | int) -> list[str]:
        return [r.id[-1] for r in order_demonstrations(chosen, order, seed=1)]

    assert (ids("given"), ids("reversed"), ids("by-label")) == (list("0123"), list("3210"), list("1302"))
    assert ids("5") == ids(5) == list("0321")


def test_orders_by_length_and_nearness() -> None:
    """By the length of what is asked, and by nearness from either end; equals stand as selected."""
    texts = {"a": "12345", "b": "1", "c": "123", "d": "x"}
    chosen = [Record(name, {"text": text}, 0) for name, text in texts.items()]

    def ids(order: str, near: list[float] | None = None) -> str:
        return "".join(r.id for r in order_demonstrations(chosen, order, near=near))

    assert ids("by-length") == "bdca"
    assert ids("nearest-first", [0.5, 2, 2, 1]) == "bcda"
    assert ids("nearest-last", [0.5, 2, 2, 1]) == "adcb"
    assert (ids("nearest-first"), ids("nearest-last")) == ("abcd", "dcba")


@given(st.integers(0, 5), seeds, st.data())
def test_sampled_orders_are_different_and_nested(k: int, seed: int, data: st.DataObject) -> None:
    """n of the k! permutations, none twice, fewer the beginning of more; all of them when all are asked for."""
    there = math.factorial(k)
    count = data.draw(st.integers(0, there))
    found = sample_orders(k, count, seed)
    assert len(set(found)) == count
    assert set(found) <= set(all_orders(k)) == set(range(there))
    assert sample_orders(k, count // 2, seed) == found[: count // 2]


def test_sampled_orders_are_drawn_evenly() -> None:
    """Every permutation of three comes first about as often, and seeds and k draw apart."""
    counts = Counter(sample_orders(3, 1, seed)[0] for seed in range(1200))
    assert sorted(counts) == list(range(6))
    assert all(150 < count < 250 for count in counts.values())
    assert sample_orders(25, 2, 0) != sample_orders(25, 2, 1)


def test_seed_changes_the_choice_and_order_seed_only_the_order() -> None:
    """Choice and order are separate factors."""
    pool = [record(number) for number in range(40)]
    query = record(99)

    def ids(seed: int, order_seed: int) -> list[str]:
        return [r.id for r in Demonstrations(pool, Draw("random", "shuffled", seed, order_seed))(query, 8)]

    assert set(ids(0, 0)) == set(ids(0, 1))
    assert ids(0, 0) != ids(0, 1)
    assert set(ids(0, 0)) != set(ids(1, 0))


def test_the_very_same_questions_are_found_whatever_they_hold() -> None:
    """A query that asks what a record asks is not shown it, also where the fields are numbers and lists."""
    fields = [{"text": "a", "tags": ["x"], "year": 1}, {"text": "a", "tags": ["y"], "year": 1}, {"text": "b"}]
    pool = Pool(tuple(Record(str(place), each, 0) for place, each in enumerate(fields)))
    found = pool.find_same(Record("q", {"year": 1.0, "tags": ["x"], "text": "a"}, None))
    assert [pool.records[place].id for place in found] == ["0"]


def test_records_of_one_name_are_told_apart() -> None:
    """Of demonstrations that share an id, only as many are kept as asked for."""
    pool = [Record("same", {"text": str(place)}, 0) for place in range(5)]
    shown = Demonstrations(pool, Draw("first"))(Record("q", {"text": "?"}, None), 4, keep=1)
    assert [record.fields["text"] for record in shown] == ["0"]


def test_errors_say_what_was_found_and_allowed() -> None:
    """Too large a k, unknown names, unlabelled pools and impossible permutations are explained."""
    pool = [record(0), record(1)]
    with pytest.raises(
        SelectionError, match="k=2 demonstrations were asked for, but the pool of 2 records has 1 besides"
    ):
        Selector(pool, "random", 0).select(pool[0], 2)
    with pytest.raises(SelectionError, match=r"unknown selection 'balancd'; known: .*Did you mean 'balanced'\?"):
        Selector(pool, "balancd")
    with pytest.raises(SelectionError, match="'balanced' needs a task with fixed labels; record 'x' has none"):
        Selector([Record("x", {}, "42")], "balanced")
    with pytest.raises(SelectionError, match=r"unknown order 'revrsed'.*Did you mean 'reversed'\?"):
        order_demonstrations(pool, "revrsed")
    with pytest.raises(SelectionError, match="unknown order '²'"):
        order_demonstrations(pool, "²")
    with pytest.raises(SelectionError, match="7 orders were asked for; 3 demonstrations have 6: ask for 0 to 6"):
        sample_orders(3, 7)
    with pytest.raises(SelectionError, match="order 2 was asked for; 2 demonstrations have orders 0 to 1"):
        order_demonstrations(pool, 2)
