"""Tests, leanings and rank correlations of a study into the few sentences above its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from promptkit.task import Task

_LEVEL = 0.05
#: How many runners-up are named, and how far a share of predictions must be from that of the labels to be told.
_NAMED, _LEANS = 3, 0.1
_ROUNDING = 1e-9


def describe_best(best: Mapping[str, Any] | None) -> list[str]:
    """Say from how many others the best is told apart, which those nearest are, and how many items it would take."""
    if not best:
        return []
    rows, of = best["rows"], best["of"]
    if all(row["lead"] < _ROUNDING for row in rows):
        return [f"All {len(rows) + 1:,} {of} are right equally often on these {best['items']:,} items: none is best."]
    sure = sum(row["adjusted"] < _LEVEL for row in rows)
    nearest = sorted((row for row in rows if row["adjusted"] >= _LEVEL), key=lambda row: row["lead"])
    others = f"from {sure:,} of the {len(rows):,} others" if len(rows) > 1 else "from the only other"
    told = "told apart" if sure or len(rows) > 1 else "not told apart"
    name = say_place(best["best"], [best["best"], *(row["factors"] for row in rows)])
    said = (
        f"Best of {len(rows) + 1:,} {of} is {name}: on these {best['items']:,} items it is {told} "
        f"{others} (paired tests, Holm's correction, {100 * _LEVEL:.0f} %)."
    )
    if not nearest:
        return [said]
    gaps = ", ".join(f"{100 * row['lead']:.1f}" for row in nearest[:_NAMED])
    needed = next((row for row in nearest if row["items_needed"]), None)
    more = (
        f"; a lead of {100 * needed['lead']:.1f} points over such a one takes about {needed['items_needed']:,} items"
        if needed
        else ""
    )
    return [
        f"{said} Nearest behind it: {gaps} points{more}. With {best['items']:,} items leads of "
        f"{100 * best['resolved']:.1f} points are found as a rule."
    ]


def say_place(place: Mapping[str, str], among: Sequence[Mapping[str, str]]) -> str:
    """Return the factors in which a place differs from others, as `k 4, order 3`."""
    axes = [axis for axis in place if len({other.get(axis) for other in among}) > 1]
    return ", ".join(f"{axis} {place[axis]}" for axis in axes) or "the only one"


def describe_agreement(agreement: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say how alike two models, or two scores, rank what they share: of every pair but scores, at most a few."""
    shown = [each for each in agreement if each["kind"] == "model"] or list(agreement)
    sentences = []
    for each in shown[:_NAMED]:
        low, high = each["spearman_ci95"]
        sentences.append(
            f"{each['first']} and {each['second']} rank {each['conditions']:,} prompts with a correlation of "
            f"{each['spearman']:.2f} [{low:.2f}, {high:.2f}] (Spearman); which of the two is ahead, by "
            f"{100 * each['reversal_gap']:.0f} points or more, turns round between {100 * each['reversal']:.0f} % of "
            "pairs of prompts."
        )
    return sentences


def describe_leaning(task: Task, methods: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say which condition leans most to a label, and which repeats the last demonstration's label most.

    Conditions from which demonstrations were dropped (those with `shown`) are not told of.
    """
    names = task.labels or ()
    whole = [method for method in methods if "shown" not in method]
    leans = [(share["predicted"] - share["true"], share, method) for method in whole for share in _known(method)]
    sentences = []
    if leans:
        excess, share, method = max(leans, key=lambda each: each[0])
        if excess > _LEANS:
            sentences.append(
                f"{_condition(method, methods)} leans to {names[share['label']]!r}: {100 * share['predicted']:.0f} % "
                f"of its answers, and right for {100 * share['true']:.0f} %."
            )
    last = [(each, method) for method in methods for each in method.get("repeats", ()) if each["from_end"] == 1]
    told = [(each, method) for each, method in last if each["ci95"][0] > 0]
    if told:
        each, method = max(told, key=lambda pair: pair[0]["excess"])
        low, high = (100 * end for end in each["ci95"])
        sentences.append(
            f"{_condition(method, methods)} repeats the label of its last demonstration in {100 * each['rate']:.0f} % "
            f"of its answers, {100 * each['excess']:.0f} points [{low:.0f}, {high:.0f}] above chance."
        )
    return sentences


def _known(method: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [share for share in method.get("leans", ()) if isinstance(share["label"], int)]


def _condition(method: Mapping[str, Any], methods: Sequence[Mapping[str, Any]]) -> str:
    if len(methods) == 1:
        return "The model"
    return f"The condition {say_place(method['factors'], [each['factors'] for each in methods])}"
