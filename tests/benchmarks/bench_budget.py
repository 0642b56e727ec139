"""The spread from a quarter of the calls, against the full grid: generated grids, and runs of `promptkit study`.

python tests/benchmarks/bench_budget.py --grids 30 [RUN …]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pyarrow.parquet

from promptkit.stats.budget import estimate_spread

#: Right or wrong, margins (None where there are none) and labels of a grid, conditions x items.
Grid = tuple[Any, Any, Any]


def leaning(seed: int, conditions: int, items: int, lean: float) -> Grid:
    """Return a grid of conditions that lean to one of two labels."""
    random = numpy.random.default_rng(seed)
    labels = random.integers(0, 2, items)
    margin = random.normal(1.3 * (2 * labels - 1), 1.0)
    answered = margin + random.normal(0, lean, (conditions, 1)) + random.normal(0, 0.5, (conditions, items))
    return ((answered > 0) == labels).astype(float), answered * (2 * labels - 1), labels


def random_answers(seed: int, conditions: int, items: int) -> Grid:
    """Return a grid of answers that are random around each condition's mean."""
    random = numpy.random.default_rng(seed)
    means = random.normal(0.7, 0.1, (conditions, 1)).clip(0.02, 0.98)
    return (random.random((conditions, items)) < means).astype(float), None, numpy.zeros(items, int)


KINDS: dict[str, Callable[[int], Grid]] = {
    "leaning, 24 x 256": lambda seed: leaning(seed, 24, 256, 1.0),
    "leaning, 60 x 500": lambda seed: leaning(seed, 60, 500, 1.0),
    "leaning, 120 x 256": lambda seed: leaning(seed, 120, 256, 1.0),
    "leaning a little, 24 x 256": lambda seed: leaning(seed, 24, 256, 0.2),
    "leaning a little, 24 x 1000": lambda seed: leaning(seed, 24, 1000, 0.2),
    "random, 10 x 1000": lambda seed: random_answers(seed, 10, 1000),
    "random, 24 x 256": lambda seed: random_answers(seed, 24, 256),
}


def read_run(folder: str) -> Grid:
    """Return the grid that a finished study holds."""
    columns = ["cell", "id", "label", "right", "logprobs"]
    rows = pyarrow.parquet.read_table(Path(folder) / "predictions.parquet", columns=columns).to_pylist()
    cells = {key: number for number, key in enumerate(dict.fromkeys(row["cell"] for row in rows))}
    items = {key: number for number, key in enumerate(dict.fromkeys(row["id"] for row in rows))}
    right, margins = numpy.zeros((len(cells), len(items))), numpy.zeros((len(cells), len(items)))
    labels = numpy.zeros(len(items), int)
    for row in rows:
        place, label = (cells[row["cell"]], items[row["id"]]), int(row["label"])
        others = [score for number, score in enumerate(row["logprobs"]) if number != label]
        right[place], margins[place] = row["right"], row["logprobs"][label] - max(others)
        labels[place[1]] = label
    return right, margins, labels


def measure(grid: Grid, seed: int, *, with_margins: bool, strategy: str) -> tuple[float, bool]:
    """Return by how much the estimate is off, and whether its interval holds the full grid's spread."""
    right, margins, labels = grid

    def evaluate(condition: Any, items: Any) -> list[Any]:
        scores = right[condition, list(items)].tolist()
        return list(zip(scores, margins[condition, list(items)].tolist(), strict=True)) if with_margins else scores

    found = estimate_spread(
        range(len(right)),
        range(right.shape[1]),
        evaluate,
        budget=right.size // 4,
        strata=labels.tolist(),
        strategy=strategy,
        seed=seed,
    )
    true = float(numpy.ptp(right.mean(axis=1)))
    return found.spread - true, found.interval.low - 1e-9 <= true <= found.interval.high + 1e-9


def main() -> None:
    """Print a row per kind of grid and per way of asking."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*")
    parser.add_argument("--grids", type=int, default=30)
    parser.add_argument("--strategy", default="halving")
    options = parser.parse_args()
    runs = {name: read_run(name) for name in options.runs}
    kinds = {**{name: lambda seed, grid=grid: grid for name, grid in runs.items()}, **KINDS}
    print("| grid | asked | spread | median error | within 2 points | interval holds it |")
    for name, make in kinds.items():
        for with_margins in (False, True):
            grids = [make(seed) for seed in range(options.grids)]
            if with_margins and grids[0][1] is None:
                continue
            found = [
                measure(grid, seed, with_margins=with_margins, strategy=options.strategy)
                for seed, grid in enumerate(grids)
            ]
            errors = numpy.abs([error for error, _ in found])
            spread = numpy.mean([numpy.ptp(right.mean(axis=1)) for right, _, _ in grids])
            print(
                f"| {name} | {'margins' if with_margins else 'scores'} | {100 * spread:.1f} | "
                f"{100 * numpy.median(errors):.1f} | {100 * numpy.mean(errors <= 0.02):.0f} % | "
                f"{100 * numpy.mean([held for _, held in found]):.0f} % |",
                flush=True,
            )


if __name__ == "__main__":
    main()
