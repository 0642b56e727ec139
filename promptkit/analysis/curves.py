"""Compute learning curves: accuracy and cost against labelled rows, and where training passes prompting.

What a line, a point and a crossing are, and what they assume, is in docs/curves.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from promptkit.analysis.cells import FinishedCell
from promptkit.analysis.comparison_result import name_condition
from promptkit.analysis.crossing import SizeComparison, compare_sizes
from promptkit.data.record import EMPTY_QUERY, hash_records
from promptkit.data.splits import Splits
from promptkit.demonstrations import Selector
from promptkit.scoring.condition import Condition, ask_model

if TYPE_CHECKING:
    from promptkit.models import Model

Group = Sequence[FinishedCell]
#: Ways of prompting that LoRA is compared with: the best of each at every size, among those that saw no more rows.
FAMILIES = ("prompting", "shared", "retrieved")


@dataclass(frozen=True)
class Row:
    """A row of the comparison's table: its runs, what the table says of them, and what the ledger says."""

    runs: Group
    method: Mapping[str, Any]
    entry: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """The kind of line it is a point of."""
        first = self.runs[0]
        if first.train_rows is not None:
            return "trained"
        if first.pool_rows:
            return "retrieved"
        return "shared" if first.condition.k else "zero-shot"

    @property
    def labelled(self) -> int:
        """How many labelled rows it needs: those trained on, retrieved from, or shown; none without demonstrations."""
        first = self.runs[0]
        return first.train_rows or first.pool_rows or first.condition.k

    @property
    def dropped(self) -> int:
        """How many demonstrations were dropped from prompts beyond the window, over all runs."""
        return sum(cell.result["dropped"] for cell in self.runs)

    @property
    def line(self) -> tuple[str, str, str, int]:
        """What the points of one line have in common: retrieved demonstrations have a line for every number."""
        condition = self.runs[0].condition
        k = condition.k if self.kind == "retrieved" else 0
        return self.kind, condition.method, condition.bound.template.name, k

    @property
    def mean(self) -> float:
        """The mean accuracy of its runs."""
        return float(self.method["accuracy"]["mean"])


class ShownRecords:
    """Names the records that draws show to all queries; each choice is made once."""

    def __init__(self, model: Model, splits: Splits) -> None:
        self.model, self.splits = model, splits
        self._selectors: dict[tuple[str, str, int], Selector] = {}

    def describe(self, condition: Condition) -> dict[str, Any]:
        """Return a draw as JSON: its seeds, and the hash of the records it shows, in the sequence of choice."""
        draw = condition.draw
        assert draw
        key = condition.bound.template.name, draw.selection, draw.seed
        if key not in self._selectors:
            helpers = ask_model(draw.selection, self.model, condition.bound, chat=condition.chat)
            self._selectors[key] = Selector(self.splits.pool, draw.selection, draw.seed, **helpers)
        shown = self._selectors[key].select(EMPTY_QUERY, condition.k)
        return {"seed": draw.seed, "order": draw.order, "rows_hash": hash_records(shown)}


def draw_curves(
    model: Model,
    splits: Splits,
    groups: Sequence[Group],
    methods: Sequence[Mapping[str, Any]],
    ledger: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the curves as JSON: lines with their points, and where LoRA and each way of prompting cross.

    `methods` and the ledger's conditions are those of the groups, in their order. `model` is asked where demonstrations
    were chosen by one.
    """
    entries = zip(groups, methods, ledger["conditions"], strict=True)
    rows = [Row(group, method, entry) for group, method, entry in entries]
    shown = ShownRecords(model, splits)
    lines: dict[tuple[str, str, str, int], list[Row]] = {}
    for row in rows:
        lines.setdefault(row.line, []).append(row)
    return {
        "sizes": sorted({row.labelled for row in rows if row.kind in ("trained", "retrieved")}),
        "lines": [_line(line, splits, shown) for line in lines.values()],
        "crossings": _crossings(rows),
    }


def _line(rows: Sequence[Row], splits: Splits, shown: ShownRecords) -> dict[str, Any]:
    first = rows[0].runs[0].condition
    retrieval = first.draw.selection if first.draw and rows[0].kind == "retrieved" else None
    name = f"{first.method} k={first.k} {retrieval}" if retrieval else first.method
    return {
        "name": name,
        "kind": rows[0].kind,
        "method": first.method,
        "template": first.bound.template.name,
        "points": [_point(row, splits, shown) for row in sorted(rows, key=lambda row: row.labelled)],
    }


def _point(row: Row, splits: Splits, shown: ShownRecords) -> dict[str, Any]:
    """Return a point: how many labelled rows and which, its runs, accuracy, failed runs and cost.

    `rows_hash` is that of what was trained on or retrieved from; where every draw shows its own, each has one.
    """
    first = row.runs[0]
    known = {"trained": first.rows, "retrieved": splits.pool[: first.pool_rows]}.get(row.kind)
    draws = [cell.condition for cell in row.runs if cell.condition.draw]
    return {
        "rows": row.labelled,
        "rows_hash": hash_records(known) if known else None,
        "k": first.condition.k,
        "runs": len(row.runs),
        "seeds": [cell.seed for cell in row.runs] if row.kind == "trained" else None,
        "draws": [shown.describe(each) if row.kind == "shared" else _retrieval(each) for each in draws] or None,
        "accuracy": row.method["accuracy"],
        "accuracies": [cell_accuracy(cell) for cell in row.runs],
        "failed": row.method["failed"],
        "dropped": row.dropped,
        "cost": _cost(row.entry),
    }


def _retrieval(condition: Condition) -> dict[str, Any]:
    return {"seed": condition.draw.seed, "order": condition.draw.order} if condition.draw else {}


def cell_accuracy(cell: FinishedCell) -> float:
    """Return the share of right answers of one run."""
    from promptkit.analysis.cell_figures import right_answers

    answers = right_answers(cell.result)
    return sum(answers) / len(answers)


def _cost(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return FLOPs: of training once, and of 1,000 test items with it, demonstrations shared or recomputed."""
    item = entry["flops_per_item"]
    training = entry["training"]["flops"] if entry["training"] else 0.0
    return {
        "training": training,
        "per_1000_shared": training + item["once"] + 1000 * item["shared"],
        "per_1000_recomputed": training + 1000 * item["recomputed"],
    }


def _crossings(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return, per template that LoRA was trained with and per way of prompting, who is ahead at which size.

    Prompts that lost demonstrations to the window do not compete: they are not what their k says.
    """
    found = []
    for template in dict.fromkeys(row.line[2] for row in rows if row.kind == "trained"):
        own = [row for row in rows if row.line[2] == template and not row.dropped]
        seen: list[list[SizeComparison]] = []
        for family in FAMILIES:
            comparisons = _compare_sizes_with(own, family)
            if comparisons and comparisons not in seen:  # the best prompt may be that of one family at every size
                seen.append(comparisons)
                found.append({"against": family, "template": template, **compare_sizes(comparisons)})
    return found


def _compare_sizes_with(rows: Sequence[Row], family: str) -> list[SizeComparison]:
    """Return, for every size, LoRA and the best prompt of this family that needs no more labelled rows."""
    comparisons = []
    for trained in sorted((row for row in rows if row.kind == "trained"), key=lambda row: row.labelled):
        size = trained.labelled
        prompts = [row for row in rows if _competes(row, family, size)]
        if prompts:
            best = max(prompts, key=lambda row: row.mean)
            comparisons.append(SizeComparison(size, trained.runs, best.runs, name_condition(best.runs[0])))
    return comparisons


def _competes(row: Row, family: str, size: int) -> bool:
    return row.kind != "trained" and family in ("prompting", row.kind) and row.labelled <= size
