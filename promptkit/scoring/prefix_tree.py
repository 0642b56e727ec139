"""Join token sequences in a prefix tree, and plan the forward passes that compute what is shared once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from promptkit.models.tokens import count_shared

Tokens = tuple[int, ...]

# A shared prefix gets a pass of its own where that saves more tokens than such a pass costs in overhead.
_WORTH_A_PASS = 64


@dataclass(frozen=True, slots=True)
class Tree:
    """Distinct token sequences in sorted order, none the beginning of another: the paths of a prefix tree.

    `shared[i]` is the number of leading tokens that `rows[i]` has in common with `rows[i - 1]`.
    """

    rows: tuple[Tokens, ...]
    shared: tuple[int, ...]

    @property
    def unique_tokens(self) -> int:
        """The number of tokens in the tree: the least that anything scoring it must compute."""
        return self.count_tokens(0, len(self.rows), 0)

    def count_tokens(self, first: int, last: int, base: int) -> int:
        """The number of tokens deeper than `base` in the subtree of `rows[first:last]`."""
        return sum(len(self.rows[row]) - self.depth_of_new(row, first, base) for row in range(first, last))

    def depth_of_new(self, row: int, first: int, base: int) -> int:
        """The depth at which `row` leaves the rows from `first` on, all of them computed down to `base`."""
        return base if row == first else max(base, self.shared[row])


@dataclass(frozen=True, slots=True)
class TreeStep:
    """One forward pass: the tokens of `rows[first:last]` from depth `base` down to `end`, each once.

    It continues the cache that step `parent` left at depth `base` (None: nothing is cached). With an `end`, all
    its rows agree that far, and its own cache is kept for later steps; without one, rows run to their ends.
    """

    parent: int | None
    first: int
    last: int
    base: int
    end: int | None = None


@dataclass(frozen=True, slots=True)
class TreeLayout:
    """The tokens of a step side by side in columns, each after its parent.

    `parents[c]` is the column before column c on its path, -1 where that is the cache. `paths[i]` are the columns
    of the step's i-th row from depth `base` on; `added[i]` is how many of them no earlier row had.
    """

    tokens: list[int]
    positions: list[int]
    parents: list[int]
    paths: list[list[int]]
    added: list[int]


def build_tree(sequences: Sequence[Tokens]) -> tuple[Tree, list[int]]:
    """Return the tree of `sequences` and, for each of them, the row that it is or begins."""
    rows: list[Tokens] = []
    row_of: dict[Tokens, int] = {}
    for sequence in sorted(set(sequences), reverse=True):  # longer ones before their beginnings
        if not rows or rows[-1][: len(sequence)] != sequence:
            rows.append(sequence)
        row_of[sequence] = len(rows) - 1
    rows.reverse()
    shared = [0, *(count_shared(left, right) for left, right in pairwise(rows))]
    tree = Tree(tuple(rows), tuple(shared[: len(rows)]))
    return tree, [len(rows) - 1 - row_of[sequence] for sequence in sequences]


def plan_steps(tree: Tree, tokens_per_step: int, deepest: int | None = None) -> list[TreeStep]:
    """Return the forward passes that compute every token of the tree at least once, parents before children.

    Rows are packed into steps of at most `tokens_per_step` tokens (a single row may be longer). A prefix gets a
    step of its own where packs would otherwise repeat it for `_WORTH_A_PASS` tokens or more. Steps come depth
    first, so only the caches on one path from the root are needed at a time. With `deepest`, no cache is kept
    beyond that depth: what is shared there is repeated.
    """
    steps: list[TreeStep] = []
    waiting: list[TreeStep] = [TreeStep(None, 0, len(tree.rows), 0, 0)]
    while waiting:
        step = waiting.pop()
        parent, depth = step.parent, step.end or 0
        if depth > 0:
            parent = len(steps)
            steps.append(step)
        cuts = _find_cuts(tree, step.first, step.last, depth, tokens_per_step, deepest)
        waiting += [TreeStep(parent, first, last, depth, end) for first, last, end in reversed(cuts)]
        edges = [step.first, *(edge for first, last, _ in cuts for edge in (first, last)), step.last]
        for first, last in zip(edges[::2], edges[1::2], strict=True):
            steps += pack_rows(tree, first, last, depth, tokens_per_step, parent)
    return steps


def lay_out(tree: Tree, step: TreeStep) -> TreeLayout:
    """Return the columns of a step."""
    layout = TreeLayout([], [], [], [], [])
    path: list[int] = []
    for row in range(step.first, step.last):
        ids = tree.rows[row][: step.end]
        start = min(tree.depth_of_new(row, step.first, step.base), len(ids))
        path = path[: start - step.base]
        for depth in range(start, len(ids)):
            layout.parents.append(path[-1] if path else -1)
            path.append(len(layout.tokens))
            layout.tokens.append(ids[depth])
            layout.positions.append(depth)
        layout.paths.append(path)
        layout.added.append(len(ids) - start)
    return layout


def _find_cuts(
    tree: Tree, first: int, last: int, base: int, capacity: int, deepest: int | None
) -> list[tuple[int, int, int]]:
    """Return the largest groups of rows (first, last, shared depth) whose prefix is worth a step of its own."""
    found = []
    waiting = [(first, last)]
    while waiting:
        first, last = waiting.pop()
        tokens = tree.count_tokens(first, last, base)
        if last - first < 2 or tokens <= capacity:
            continue
        depth = min(tree.shared[first + 1 : last])
        repeats = -(-tokens // capacity) - 1
        kept = depth if deepest is None else min(depth, deepest)
        if (kept - base) * repeats >= _WORTH_A_PASS:
            found.append((first, last, kept))
        else:
            edges = [first, *(row for row in range(first + 1, last) if tree.shared[row] == depth), last]
            waiting += reversed(list(pairwise(edges)))
    return found


def pack_rows(
    tree: Tree, first: int, last: int, base: int, capacity: int, parent: int | None = None
) -> Iterator[TreeStep]:
    """Yield steps that hold as many neighbouring rows as fit."""
    start, tokens = first, 0
    for row in range(first, last):
        added = len(tree.rows[row]) - tree.depth_of_new(row, start, base)
        if row > start and tokens + added > capacity:
            yield TreeStep(parent, start, row, base)
            start, tokens = row, 0
            added = len(tree.rows[row]) - base
        tokens += added
    if start < last:
        yield TreeStep(parent, start, last, base)
