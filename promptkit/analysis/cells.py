"""Cells of a study, planned and finished: their places on the axes, and their predictions as rows of a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from promptkit.analysis.cell_figures import right_answers
from promptkit.costs.flops import Cost
from promptkit.data.record import Record
from promptkit.data.splits import Splits
from promptkit.scoring.condition import Condition
from promptkit.scoring.scoring_rules import Readings, read_predictions
from promptkit.stats.metrics import Answer
from promptkit.storage.parsing import cell_key

#: The axes of a study, as they are named in its table; an inner one varies within each value of its outer one.
AXES = (
    "model",
    "method",
    "template",
    "format",
    "labels",
    "selection",
    "k",
    "demo-labels",
    "rationale",
    "draw",
    "order",
    "train-size",
    "seed",
    "test",
)
NESTED = {"order": "draw"}

#: The axes that repeat a condition: their values have no meaning of their own.
VARIED = ("draw", "order", "seed")


@dataclass(frozen=True)
class PlannedCell:
    """One cell to compute: a condition and, for LoRA, the rows to train on first and those to stop early by.

    `whole` marks the largest training set, which the other methods are compared with. `pool_rows` is the number of
    records that demonstrations are retrieved from, None where it is the whole pool. `adapter_of` is the spec of the
    step whose adapter this one is scored with, on other records; None for its own. In a study, `factors` is its place
    on every axis, `picked` names the order searches that picked its order, and `asked` says whether that was also asked
    for by itself.
    """

    condition: Condition
    rows: tuple[Record, ...] = ()
    validation: tuple[Record, ...] = ()
    whole: bool = False
    seed: int = 0
    epochs: int = 0
    spec: Mapping[str, Any] = field(default_factory=dict)
    weight: int = 1
    pool_rows: int | None = None
    adapter_of: Mapping[str, Any] | None = None
    factors: Mapping[str, str] = field(default_factory=dict)
    picked: tuple[str, ...] = ()
    asked: bool = True

    @property
    def name(self) -> str:
        """What the progress line says."""
        condition = self.condition
        what = f"{len(self.rows)} rows, seed {self.seed}" if self.rows else f"k={condition.k}"
        what += f" of {self.pool_rows} rows" if self.pool_rows else ""
        return f"{condition.method} {what}" if self.rows or condition.k else condition.method

    @property
    def training(self) -> Mapping[str, Any]:
        """The spec that the step's adapter is kept under."""
        return self.adapter_of or self.spec

    @property
    def group(self) -> tuple[tuple[str, str], ...]:
        """What cells have in common whose prompts are run together: all but the sequence of the same choice."""
        return tuple((axis, value) for axis, value in self.factors.items() if axis != "order")

    def pool(self, splits: Splits) -> tuple[Record, ...]:
        """Return the records that demonstrations are chosen from."""
        return splits.pool[: self.pool_rows]


@dataclass(frozen=True)
class FinishedCell:
    """One computed cell: what was planned, its stored result, its cost; for LoRA the training's too."""

    planned: PlannedCell
    result: Mapping[str, Any]
    cost: Cost
    trained: Mapping[str, Any] | None = None
    train_cost: Cost | None = None

    @property
    def condition(self) -> Condition:
        """How the model was asked."""
        return self.planned.condition

    @property
    def rows(self) -> tuple[Record, ...]:
        """What an adapter was trained on; empty where none was."""
        return self.planned.rows

    @property
    def train_rows(self) -> int | None:
        """How many rows that were; None where no adapter was trained."""
        return len(self.rows) or None

    @property
    def seed(self) -> int | None:
        """The seed of the training; None where there was none."""
        return self.planned.seed if self.rows else None

    @property
    def whole(self) -> bool:
        """Whether it was trained on the whole pool, and not on as many rows as a prompt shows."""
        return self.planned.whole

    @property
    def pool_rows(self) -> int | None:
        """How many records demonstrations were retrieved from; None where that was the whole pool."""
        return self.planned.pool_rows

    @property
    def group(self) -> tuple[str, str, int, int, bool, int]:
        """What runs of one method have in common."""
        template = self.condition.bound.template.name
        rows = self.train_rows or 0
        return self.condition.method, template, self.condition.k, rows, self.whole, self.pool_rows or 0

    @property
    def sampled(self) -> tuple[str, int | None]:
        """What is drawn anew when runs are resampled: a choice of demonstrations with all its orders, or a seed."""
        draw = self.condition.draw
        return (draw.selection, draw.seed) if draw else ("", self.seed)

    @cached_property
    def readings(self) -> Readings:
        """What is predicted under every score and calibration that was asked for."""
        return read_predictions(self.result)

    @property
    def shown(self) -> float:
        """The mean number of demonstrations in its prompts: k, less those dropped from prompts that were too long."""
        return self.condition.k - float(self.result["dropped"]) / len(self.result["predictions"])

    @property
    def labels(self) -> list[Answer]:
        """The right answers, in the order of the predictions."""
        return [row["label"] for row in self.result["predictions"]]

    @cached_property
    def right(self) -> tuple[int, ...]:
        """1 or 0 per test record: whether its answer was read and right."""
        return right_answers(self.result)

    @property
    def accuracy(self) -> float:
        """The share of test records that it is right about."""
        return fmean(self.right)


def list_axes(points: Iterable[PlannedCell]) -> dict[str, tuple[str, ...]]:
    """Return the values that every axis takes in these cells, in the order of the cells."""
    found: dict[str, dict[str, None]] = {}
    for point in points:
        for axis, value in point.factors.items():
            found.setdefault(axis, {})[value] = None
    return {axis: tuple(found[axis]) for axis in AXES if axis in found}


def fixed_factors(point: PlannedCell) -> dict[str, str]:
    """Return a cell's place on the axes that make its condition: all but the draw, its order and the seed."""
    return {axis: value for axis, value in point.factors.items() if axis not in VARIED}


def condition_of(point: PlannedCell) -> tuple[tuple[str, str], ...]:
    """Return the same, to look a condition up by."""
    return tuple(fixed_factors(point).items())


def group_methods(done: Sequence[FinishedCell]) -> list[list[FinishedCell]]:
    """Return the cells that differ in nothing but the draw, its order and the seed, together."""
    groups: dict[tuple[tuple[str, str], ...], list[FinishedCell]] = {}
    for each in done:
        groups.setdefault(condition_of(each.planned), []).append(each)
    return list(groups.values())


def leave_out_dropped(done: Sequence[FinishedCell]) -> list[FinishedCell]:
    """Return the cells of the conditions whose prompts all show k demonstrations: others are not what their k says."""
    short = find_dropped(done)
    return [each for each in done if condition_of(each.planned) not in short]


def find_dropped(done: Sequence[FinishedCell]) -> set[tuple[tuple[str, str], ...]]:
    """Return the conditions from some of whose prompts demonstrations were dropped."""
    return {condition_of(each.planned) for each in done if each.result["dropped"]}


def write_predictions(cells: Iterable[tuple[PlannedCell, Sequence[Mapping[str, Any]]]], path: Path) -> None:
    """Write every prediction of every cell as a row of a Parquet file, in place of one that is there.

    Columns: the axes, `cell` (its key), `id`, `label`, `predicted` (as text), `right`, `logprobs` (nats per choice).
    """
    import pyarrow
    import pyarrow.parquet

    from promptkit.storage.files import new_file

    with new_file(path, replace=True) as file:
        table = pyarrow.Table.from_pylist(list(_prediction_rows(cells)))
        pyarrow.parquet.write_table(table, file)


def _prediction_rows(cells: Iterable[tuple[PlannedCell, Sequence[Mapping[str, Any]]]]) -> Iterator[Mapping[str, Any]]:
    for point, predictions in cells:
        axes = {axis: point.factors.get(axis) for axis in AXES}
        key = cell_key(point.spec)
        right = right_answers({"predictions": predictions})
        for row, is_right in zip(predictions, right, strict=True):
            yield {
                "cell": key,
                **axes,
                "id": row["id"],
                "label": None if row["label"] is None else str(row["label"]),
                "predicted": None if row["predicted"] is None else str(row["predicted"]),
                "right": bool(is_right),
                "logprobs": row["logprobs"],
            }
