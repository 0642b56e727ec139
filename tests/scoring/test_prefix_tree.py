"""The prefix tree: every token is planned, what is shared is planned once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from promptkit.scoring.prefix_tree import Tree, build_tree, lay_out, plan_steps

SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12).map(tuple), min_size=1, max_size=20)


def long_sequences() -> list[tuple[int, ...]]:
    """100 queries of 10 tokens behind one of 2 prefixes of 200 tokens that share their first 100."""
    shared = tuple(range(100))
    prefixes = [shared + tuple(range(start, start + 100)) for start in (1000, 2000)]
    return [prefixes[query % 2] + tuple(range(query, query + 10)) for query in range(100)]


def count_planned(tree: Tree, tokens_per_step: int) -> int:
    return sum(len(lay_out(tree, step).tokens) for step in plan_steps(tree, tokens_per_step))


@given(SEQUENCES)
def test_every_sequence_begins_its_row(sequences: list[tuple[int, ...]]) -> None:
    """A tree's rows are sorted, none begins another, and each sequence begins the row it is said to."""
    tree, row_of = build_tree(sequences)
    assert list(tree.rows) == sorted(tree.rows)
    for sequence, row in zip(sequences, row_of, strict=True):
        assert tree.rows[row][: len(sequence)] == sequence
    for row in tree.rows:
        assert sum(other[: len(row)] == row for other in tree.rows) == 1


@given(SEQUENCES)
def test_unique_tokens_are_the_distinct_beginnings(sequences: list[tuple[int, ...]]) -> None:
    """The tree has one token for every distinct beginning of the sequences."""
    beginnings = {sequence[:end] for sequence in sequences for end in range(1, len(sequence) + 1)}
    assert build_tree(sequences)[0].unique_tokens == len(beginnings)


@given(SEQUENCES, st.integers(1, 40))
def test_steps_compute_every_token_after_its_parents(sequences: list[tuple[int, ...]], tokens_per_step: int) -> None:
    """Each row can be put together from its step's path and the caches before it, and steps fit the budget."""
    tree, _ = build_tree(sequences)
    steps = plan_steps(tree, tokens_per_step)
    known: dict[tuple[int | None, int], tuple[int, ...]] = {}  # by step and row: the tokens down to its end
    whole = {}
    for number, step in enumerate(steps):
        layout = lay_out(tree, step)
        assert len(layout.tokens) <= tokens_per_step or step.last - step.first == 1 or step.end is not None
        for row, path in zip(range(step.first, step.last), layout.paths, strict=True):
            before = known.get((step.parent, row), ())
            assert len(before) == step.base
            tokens = before + tuple(layout.tokens[column] for column in path)
            assert [layout.positions[column] for column in path] == list(range(step.base, len(tokens)))
            assert [layout.parents[column] for column in path] == [-1, *path[:-1]][: len(path)]
            known[number, row] = tokens
            if step.end is None:
                assert row not in whole
                whole[row] = tokens
    assert whole == dict(enumerate(tree.rows))


def test_long_shared_prefixes_are_computed_once() -> None:
    """Two prefixes that share their own beginning cost no more than the tree's unique tokens."""
    tree, _ = build_tree(long_sequences())
    assert tree.unique_tokens == 100 + 2 * 100 + 100 * 10
    assert count_planned(tree, 128) == tree.unique_tokens
    assert [step.end for step in plan_steps(tree, 128) if step.end] == [100, 200, 200]


def test_short_shared_prefixes_get_no_pass_of_their_own() -> None:
    """A prefix of a token or two is repeated, where a pass for it would cost more than it saves."""
    tree, _ = build_tree([(0, query, 1, 2, 3) for query in range(1, 50)])
    assert all(step.end is None for step in plan_steps(tree, 64))


def test_deeply_nested_prefixes_do_not_exhaust_the_stack() -> None:
    """Thousands of prefixes, each the next one's beginning, are planned without recursion."""
    rows = [(*[0] * length, 1) for length in range(3000)]
    tree, _ = build_tree(rows)
    assert count_planned(tree, 5000) < 1.1 * tree.unique_tokens


def test_no_sequences_make_an_empty_tree() -> None:
    """Nothing to score is nothing to plan."""
    tree, row_of = build_tree([])
    assert (tree.rows, row_of, plan_steps(tree, 10)) == ((), [], [])
