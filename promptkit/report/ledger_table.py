"""Print a ledger: tokens by kind, prices, what choosing took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from promptkit.report.units import FLOP, NOTHING, SECONDS, quantity

Result = Mapping[str, Any]
Columns = Mapping[str, Sequence[str]]

_KINDS = {
    "template": "tem-\nplate",
    "demonstrations": "shown",
    "input": "input",
    "label": "labels",
    "generated": "writ-\nten",
}
_TRAINED = {"read": "train:\nread", "completion": "with\nloss", "validation": "vali-\ndation"}


def token_columns(conditions: Sequence[Result]) -> Columns:
    """Return the columns of the table of tokens: of a test item by kind, and of training in all its passes."""
    columns = {
        header: [f"{row['tokens_per_item'][kind]:,.0f}" for row in conditions]
        for kind, header in _KINDS.items()
        if kind != "generated" or any(row["tokens_per_item"][kind] for row in conditions)
    }
    if any(row["training"] for row in conditions):
        columns |= {
            header: [_thousands(tokens[kind]) if tokens else NOTHING for tokens in map(_read, conditions)]
            for kind, header in _TRAINED.items()
        }
    return columns


def _read(condition: Result) -> dict[str, float]:
    """Return the tokens of its training, all that is read without a loss as one kind; empty without training."""
    tokens = condition["training"]["tokens"] if condition["training"] else {}
    return {**tokens, "read": tokens["template"] + tokens["input"]} if tokens else {}


def _thousands(tokens: float) -> str:
    return f"{tokens / 1000:,.0f}k" if tokens >= 1000 else f"{tokens:,.0f}"


def price_columns(conditions: Sequence[Result]) -> Columns:
    """Return the columns of the table of prices: of 1,000 items and of training once."""
    columns: dict[str, list[str]] = {}
    wanted = (
        ("local", "per_1000", "own\nhardware"),
        ("local", "training", "its\ntraining"),
        ("tokens", "recomputed", "by tokens,\nrecomputed"),
        ("tokens", "shared", "by tokens,\nshared"),
        ("tokens", "training", "its\ntraining "),
    )
    for group, key, header in wanted:
        if any(group in row["money"] for row in conditions):
            columns[header] = [_money(row["money"][group][key]) for row in conditions]
    return columns


def _money(amount: float | None) -> str:
    if amount is None:
        return NOTHING
    return f"{amount:,.2f}" if amount >= 0.1 or amount == 0 else f"{amount:.2g}"


def describe_choosing(choosing: Result) -> list[str]:
    """Say how many prompts and adapters were tried here, and what that took."""
    said = []
    for kind, extra in (("prompts", ""), ("adapters", ", their training and their tests together")):
        tried = choosing[kind]
        if tried["tried"]:
            took = f"{quantity(tried['flops'], FLOP)} and {quantity(tried['seconds'], SECONDS)}{extra}"
            name = kind if tried["tried"] > 1 else kind.removesuffix("s")
            said.append(f"Tried: {tried['tried']:,} {name}, {took}.")
    return said


def describe_money(counts: Mapping[str, Mapping[str, int | None]]) -> list[str]:
    """Say from how many test items on LoRA is cheaper in money, per way of prompting and of paying."""
    ways = {"local": "own hardware, as run here", "recomputed": "by tokens", "shared": "by tokens, prefix cached"}
    sentences = []
    for name, each in counts.items():
        parts = [f"{'never' if each[way] is None else f'{each[way]:,}'} ({ways[way]})" for way in ways if way in each]
        sentences.append(f"LoRA costs less than {name} from so many items on: {', '.join(parts)}.")
    return sentences
