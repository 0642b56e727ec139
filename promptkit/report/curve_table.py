"""Print learning curves: every point, who is ahead at which size, and where they cross."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from promptkit.report.units import FLOP, condition_name, in_one_unit, p_value, percent, percent_range

Result = Mapping[str, Any]
Columns = Mapping[str, Sequence[str]]

_FAMILIES = {
    "prompting": "the best prompt",
    "shared": "few-shot with shared demonstrations",
    "retrieved": "few-shot with retrieved demonstrations",
}


#: The same above their lines in a table.
HEADINGS = {"prompting": "best prompt", "shared": "shared", "retrieved": "retrieved"}


def list_points(curves: Result) -> list[dict[str, Any]]:
    """Return every point of the curves with its line's name as its method, line by line."""
    return [
        {**point, "method": line["name"], "template": line["template"], "kind": line["kind"], "k": None}
        for line in curves["lines"]
        for point in line["points"]
    ]


def point_columns(points: Sequence[Result]) -> Columns:
    """Return the columns of the table of points; costs are of 1,000 test items, training included."""
    accuracies = [point["accuracy"] for point in points]
    columns = {
        "rows": [f"{point['rows']:,}" for point in points],
        "runs": [str(point["runs"]) for point in points],
        "mean": [percent(accuracy["mean"]) for accuracy in accuracies],
        "95 % interval": [percent_range(accuracy.get("ci95")) for accuracy in accuracies],
    }
    if all(point["failed"] is not None for point in points):
        columns["failed"] = [str(point["failed"]) for point in points]
    shared = [point["cost"]["per_1000_shared"] for point in points]
    recomputed = [point["cost"]["per_1000_recomputed"] for point in points]
    return columns | dict((in_one_unit("shared", shared, FLOP), in_one_unit("recom-\nputed", recomputed, FLOP)))


def list_size_comparisons(crossings: Sequence[Result]) -> list[dict[str, Any]]:
    """Return LoRA against each way of prompting at every size; the way of prompting heads its lines."""
    return [
        {**size, "method": f"{size['rows']:,} rows", "template": HEADINGS[crossing["against"]]}
        for crossing in crossings
        for size in crossing["sizes"]
    ]


def size_columns(comparisons: Sequence[Result]) -> Columns:
    """Return the columns of the table of comparisons: LoRA minus prompt, in points."""
    return {
        "prompt": [name_prompt(comparison) for comparison in comparisons],
        "points": [f"{100 * comparison['difference']:+.1f}" for comparison in comparisons],
        "95 % interval": [_signed(comparison["ci95"]) for comparison in comparisons],
        "p": [p_value(comparison["adjusted"]).removeprefix("p ").removeprefix("= ") for comparison in comparisons],
        "ahead": [_who(comparison["ahead"]) if comparison["ahead"] else "open" for comparison in comparisons],
    }


def name_prompt(comparison: Result) -> str:
    """Return the name of a comparison's prompt, with its pool only where LoRA is trained on more records."""
    prompt = comparison["prompt"]
    return condition_name({**prompt, "pool_rows": None} if prompt.get("pool_rows") == comparison["rows"] else prompt)


def describe_crossings(crossings: Sequence[Result]) -> list[str]:
    """Say between which amounts of labelled data training passes prompting or is passed, and how sure that is."""
    several = len({crossing["template"] for crossing in crossings}) > 1
    sentences = [_describe(crossing, _against(crossing, several)) for crossing in crossings]
    if sentences:
        sentences.append(
            "At every size the prompt is the one that is best on these very records, of those that need no more "
            "labelled rows, which favours prompting. The intervals at these sizes resample records, draws and seeds; "
            "p is of the paired test, adjusted for the number of sizes."
        )
    return sentences


def _against(crossing: Result, several: bool) -> str:
    return _FAMILIES[crossing["against"]] + (f" ({crossing['template']})" if several else "")


def _describe(crossing: Result, other: str) -> str:
    sizes, changes = crossing["sizes"], crossing["changes"]
    said = [
        f"{_capital(winner)} passes {loser} between {low:,} and {high:,} labelled rows."
        for (low, high), to in ((change["between"], change["to"]) for change in changes)
        for winner, loser in (("LoRA", other) if to == "lora" else (other, "LoRA"),)
    ]
    if not changes:
        said.append(_unchanged(sizes, other))
    open_sizes = [size["rows"] for size in sizes if not size["ahead"]]
    if open_sizes and len(open_sizes) < len(sizes):
        said.append(f"At {_list(open_sizes)} rows it is too close to call.")
    return " ".join([*said, *_leads(crossing, other)])


def _unchanged(sizes: Sequence[Result], other: str) -> str:
    """Say who is ahead where the sizes show no change."""
    ahead = [size["rows"] for size in sizes if size["ahead"]]
    if not ahead:
        return f"Between LoRA and {other} it is too close to call at {_list([size['rows'] for size in sizes])} rows."
    lora = any(size["ahead"] == "lora" for size in sizes)
    winner, loser = ("LoRA", other) if lora else (other, "LoRA")
    where = "at every size" if len(ahead) == len(sizes) else f"at {_list(ahead)} rows"
    stays = "stays" if len(ahead) == len(sizes) and len(sizes) > 1 else "is"
    return f"{_capital(winner)} {stays} ahead of {loser} {where}."


def _leads(crossing: Result, other: str) -> list[str]:
    """Say from how many rows on the one that leads at the largest size has the higher mean."""
    sizes, leads = crossing["sizes"], crossing["leads"]
    if len(sizes) < 2:
        return []
    first, last = sizes[0]["rows"], sizes[-1]["rows"]
    low, high = leads["ci95"]
    if leads["rows"] is None and low is None and high is None:
        return []
    who = "LoRA" if leads["who"] == "lora" else other
    start = f"from about {leads['rows']:,.0f} rows on" if leads["rows"] is not None else "at every size"
    ends = f"{f'{low:,.0f}' if low else f'below {first:,}'} to {f'{high:,.0f}' if high else f'beyond {last:,}'}"
    return [f"By the means {who} leads {start} (95 % interval of where that begins: {ends} rows)."]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _who(ahead: str) -> str:
    return "LoRA" if ahead == "lora" else "prompt"


def _list(rows: Sequence[int]) -> str:
    words = [f"{number:,}" for number in rows]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _signed(ends: Sequence[float]) -> str:
    return f"{100 * ends[0]:+.1f} to {100 * ends[1]:+.1f}"
