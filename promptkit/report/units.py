"""Word numbers and conditions as all tables and figures do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from promptkit.analysis.sentences import condition_name as condition_name

NOTHING = "–"
#: Axes whose values are not counted under the axis's own name, and what they are called.
_COUNTED = {"k": "numbers of demonstrations", "labels": "sets of label words", "demo-labels": "kinds of labels shown"}
FLOP = (
    (1e18, "EFLOP"),
    (1e15, "PFLOP"),
    (1e12, "TFLOP"),
    (1e9, "GFLOP"),
    (1e6, "MFLOP"),
    (1e3, "kFLOP"),
    (1, "FLOP"),
)
BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B"))
SECONDS = ((3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs"))
Units = Sequence[tuple[float, str]]  # (size, name), the largest first


def with_largest_pool(conditions: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the conditions less those that retrieve from less than all: these are points of curves."""
    most = max((each.get("pool_rows") or 0 for each in conditions), default=0)
    return [each for each in conditions if each.get("pool_rows") in (None, most)]


def templates(result: Mapping[str, Any]) -> list[str]:
    """Return the templates of a comparison in their order; an empty name where none is given."""
    return list(dict.fromkeys(method.get("template") or "" for method in result["methods"]))


def test_items(result: Mapping[str, Any]) -> int:
    """Return the number of test records that every condition was run on."""
    records = result.get("records") or {}
    return int(records.get("test") or result["cells"][0]["n"])


def count_of(number: int, noun: str) -> str:
    """Return `1 cell`, `1,204 cells`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def say_cells(result: Mapping[str, Any]) -> str:
    """Return how many cells a study has, of what: `8 cells · 2 templates x 4 draws · 8 more cells on mr`."""
    axes = [
        f"{len(values)} {_COUNTED.get(axis, axis + 's')}" for axis, values in result["axes"].items() if len(values) > 1
    ]
    parts = [count_of(len(result["cells"]), "cell"), *([" x ".join(axes)] if axes else [])]
    if away := result.get("away"):
        tests = dict.fromkeys(cell["factors"].get("test", NOTHING) for cell in away)
        parts.append(f"{count_of(len(away), 'more cell')} on {', '.join(tests)}")
    return " · ".join(parts)


def draw_name(draw: Mapping[str, Any] | None) -> str:
    """Return `seed 3, order 5`, or nothing where there was nothing to draw."""
    known = [f"{name} {draw[name]}" for name in ("seed", "order") if draw.get(name) is not None] if draw else []
    return ", ".join(known)


def cautions(result: Mapping[str, Any]) -> list[str]:
    """Return what is said before everything else: one answer to all records, no better than the most frequent label."""
    return [str(said) for said in result.get("cautions", ())]


def other_notes(result: Mapping[str, Any]) -> list[str]:
    """Return the notes that were not said before everything else."""
    said = cautions(result)
    return [str(note) for note in result.get("notes", ()) if note not in said]


def baseline(result: Mapping[str, Any]) -> tuple[float, str] | None:
    """Return what can be reached without reading a record, and its name: the most frequent label, else chance."""
    if result.get("majority") is not None:
        return float(result["majority"]), "most frequent label"
    return None if result.get("chance") is None else (float(result["chance"]), "chance")


def percent(share: float | None) -> str:
    """Return a share as percent without its sign: 0.7125 as 71.2."""
    return NOTHING if share is None else f"{100 * share:.1f}"


def percent_range(ends: Sequence[float] | None) -> str:
    """Return two shares as `64.5–77.1`."""
    return NOTHING if ends is None else f"{percent(ends[0])}–{percent(ends[1])}"


def number(value: float) -> str:
    """Return one digit after the point below a hundred, and thousands separated: 3.1, 412, 1,204."""
    return f"{value:,.1f}" if 0 < value < 99.95 else f"{value:,.0f}"


def unit_for(values: Sequence[float], units: Units) -> tuple[float, str]:
    """Return the largest unit (size, name) of which every value but zero has at least one."""
    smallest = min((value for value in values if value > 0), default=1.0)
    return next((unit for unit in units if smallest >= unit[0]), units[-1])


def in_one_unit(words: str, values: Sequence[float | None], units: Units) -> tuple[str, list[str]]:
    """Return (header, cells): all values in the unit that suits the smallest."""
    size, name = unit_for([value for value in values if value is not None], units)
    return f"{words}\n{name}", [NOTHING if value is None else number(value / size) for value in values]


def quantity(value: float, units: Units) -> str:
    """Return one value in the unit that suits it: 1.2e9 FLOP as `1.2 GFLOP`."""
    size, name = unit_for([value], units)
    return f"{number(value / size)} {name}"


def p_value(p: float) -> str:
    """Return `p = 0.012`, or `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
