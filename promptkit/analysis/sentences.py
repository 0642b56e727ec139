"""Say what tests, label bias and rank correlations show, in the few sentences above a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from promptkit.data.tasks import Task
from promptkit.stats import adjust_p_values
from promptkit.stats.majority import ONE_ANSWER

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


def describe_cautions(
    methods: Sequence[Mapping[str, Any]], majority: tuple[str, float] | None, labels: Sequence[str] | None
) -> list[str]:
    """Say which methods give one answer to nearly every record, and which are not shown to beat the majority.

    `methods` are those of a result; `majority` is the most frequent label and its rate, None where there is none;
    `labels` are the names of the labels. At most two sentences, which stand before everything else.
    """
    named = list(zip(_name_all(methods), methods, strict=True))
    said = []
    if one := [f"{name} {_say_one(method, labels)}" for name, method in named if method.get("one_answer")]:
        said.append(f"One answer is given to {100 * ONE_ANSWER:.0f} % or more of the records: {_list_some(one)}.")
    tested = [(name, method) for name, method in named if method.get("against_majority")]
    return said + (_describe_majority(tested, *majority) if majority else [])


def _say_one(method: Mapping[str, Any], labels: Sequence[str] | None) -> str:
    """Return the answer and its share, or in how many runs there is one."""
    one = method["one_answer"]
    answer = one["answer"]
    if answer is None or one["runs"] < method["runs"]:
        return f"(in {one['runs']} of {method['runs']} runs)"
    if isinstance(answer, int) and not labels:
        return f"(choice {answer + 1}, {100 * one['share']:.1f} %)"
    if isinstance(answer, int) and labels:
        answer = labels[answer]
    return f"({answer!r:.60}, {100 * one['share']:.1f} %)"


def _describe_majority(tested: Sequence[tuple[str, Mapping[str, Any]]], label: str, rate: float) -> list[str]:
    adjusted = adjust_p_values([method["against_majority"]["p_value"] for _, method in tested])
    worse, unsure = [], []
    for (name, method), p_value in zip(tested, adjusted, strict=True):
        found = method["against_majority"]
        figure = f"{name} ({100 * method['accuracy']['mean']:.1f} %)"
        if p_value < _LEVEL and found["ci95"][1] < 0:
            worse.append(figure)
        elif not found["better"]:
            unsure.append(figure)
    always = f"Always answering {label!r:.60} would be right for {100 * rate:.1f} % of these records"
    parts = [
        f"{what}: {_list_some(those)}"
        for what, those in (("worse", worse), ("not shown to be better", unsure))
        if those
    ]
    return [f"{'; '.join([always, *parts])}."] if parts else []


def _list_some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def condition_name(condition: Mapping[str, Any]) -> str:
    """Return `few-shot k=4`, `few-shot k=4 bm25 of 128`, `lora 1,000 rows` or the bare method: its name everywhere.

    Where demonstrations were dropped: `few-shot k=64 (30.2 shown)`.
    """
    if condition.get("train_rows") is not None:
        return f"{condition['method']} {condition['train_rows']:,} rows"
    shots = f" k={condition['k']}" if condition.get("k") else ""
    retrieval = f" {condition['retrieval']}" if condition.get("retrieval") else ""
    pool = f" of {condition['pool_rows']:,}" if condition.get("pool_rows") else ""
    return f"{condition['method']}{shots}{retrieval}{pool}{_say_shown(condition)}"


def _say_shown(condition: Mapping[str, Any]) -> str:
    return f" ({condition['shown']:.1f} shown)" if condition.get("k") and "shown" in condition else ""


def _name_all(methods: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the methods' names: in a study what sets each apart, else the condition, and one of several templates."""
    if all("factors" in method for method in methods):
        places = [method["factors"] for method in methods]
        return [
            say_place(place, places) if len(places) > 1 else condition_name(method)
            for place, method in zip(places, methods, strict=True)
        ]
    several = len({method.get("template") for method in methods}) > 1
    return [
        f"{condition_name(method)} ({method['template']})" if several else condition_name(method) for method in methods
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
