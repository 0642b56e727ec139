"""Pack rows into one sequence without padding, in which a shared prefix stands once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import torch

from promptkit.models.tokens import count_shared
from promptkit.training.batches import Batch, TokenRow, list_targets

_WORTH_SHARING = 8  # tokens; for fewer, attending in two parts takes longer than computing them again


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that begin alike: `prefix` tokens once, then the rest of every row.

    `runs` are (rows, tokens of each) in their order; rows as long as one another stand side by side.
    """

    prefix: int
    runs: tuple[tuple[int, int], ...]

    @property
    def length(self) -> int:
        """How many tokens the group has in the sequence."""
        return self.prefix + sum(count * length for count, length in self.runs)


@dataclass(frozen=True, slots=True)
class PackedLayout:
    """How the tokens of a packed sequence belong together: groups, one behind the other."""

    groups: tuple[Group, ...]

    @property
    def length(self) -> int:
        """How many tokens the sequence has."""
        return sum(group.length for group in self.groups)


def lay_out(rows: Sequence[TokenRow]) -> tuple[PackedLayout, list[TokenRow]]:
    """Return the layout of a batch and its rows in the order of the layout.

    A position whose logits are read is never shared, for the rows it stands for may go on differently.
    """
    ordered = sorted(rows, key=lambda row: row.ids)
    # the last token before the completion predicts its first one, so it belongs to its row alone
    shared = [
        min(count_shared(left.ids, right.ids), left.start - 1, right.start - 1) for left, right in pairwise(ordered)
    ]
    groups, found = [], []
    for first, last, prefix in _cut(shared):
        members = sorted(ordered[first:last], key=lambda row: row.length)
        runs = groupby(members, key=lambda row: row.length - prefix)
        groups.append(Group(prefix, tuple((sum(1 for _ in run), length) for length, run in runs)))
        found += members
    return PackedLayout(tuple(groups)), found


def _cut(shared: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return the groups (first, last, prefix) of sorted rows that need the fewest tokens in all.

    `shared[i]` is what rows i and i + 1 have in common; rows are cut apart where that is below one depth.
    """
    cuts = [_cut_below(shared, depth) for depth in sorted({0, *shared})]
    return max(cuts, key=lambda groups: sum((last - first - 1) * prefix for first, last, prefix in groups))


def _cut_below(shared: Sequence[int], depth: int) -> list[tuple[int, int, int]]:
    edges = [0, *(row + 1 for row, count in enumerate(shared) if count < depth), len(shared) + 1]
    groups = []
    for first, last in pairwise(edges):
        prefix = min(shared[first : last - 1], default=0)
        groups.append((first, last, prefix if prefix >= _WORTH_SHARING else 0))
    return groups


def pack(rows: Sequence[TokenRow]) -> Batch:
    """Return a batch whose rows are one sequence, laid out by `lay_out`."""
    layout, ordered = lay_out(rows)
    ids: list[int] = []
    positions: list[int] = []
    columns: list[int] = []
    remaining = iter(ordered)
    for group in layout.groups:
        members = [next(remaining) for _ in range(sum(count for count, _ in group.runs))]
        ids += members[0].ids[: group.prefix]
        positions += range(group.prefix)
        for row in members:
            columns += range(len(ids) + row.start - 1 - group.prefix, len(ids) + row.length - group.prefix)
            ids += row.ids[group.prefix : -1]
            positions += range(group.prefix, row.length)
    loss_mask = torch.zeros(1, len(ids), dtype=torch.bool)
    loss_mask[0, columns] = True
    return Batch(
        ids=torch.tensor([ids]),
        attention=None,
        positions=torch.tensor([positions]),
        layout=layout,
        loss_mask=loss_mask,
        **list_targets(ordered),
    )
