"""Say in sentences what the figures of a comparison mean, and what they do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from promptkit.analysis.sentences import say_place
from promptkit.report.units import baseline, condition_name, draw_name, p_value, percent, percent_range, templates

Result = Mapping[str, Any]
_TOLD = 6  # conditions that one sentence tells of


def describe_spread(result: Result) -> list[str]:
    """Say how far draws alone, and seeds alone, move accuracy at most."""
    several = [method for method in result["methods"] if method["runs"] > 1]
    prompts = [method for method in several if method["method"] != "lora"]
    trained = [method for method in several if method["method"] == "lora"]
    return [
        _say_range(widest, runs, result)
        for runs, methods in (("draws", prompts), ("seeds", trained))
        for widest in sorted(methods, key=_range)[-1:]
    ]


def _say_range(method: Result, runs: str, result: Result) -> str:
    low, high, count = (percent(method["accuracy"]["min"]), percent(method["accuracy"]["max"]), method["runs"])
    if low == high:
        return f"All {count} {runs} of {_name(method, result)} are right for {high} %."
    moved = f"from {low} to {high} %, by {percent(_range(method))} points over {count} {runs}"
    return f"{_say_cause(method, result)} {_name(method, result)} {moved}."


def _say_cause(method: Result, result: Result) -> str:
    """Return what its runs differ in, as the subject of a sentence."""
    if method["method"] == "lora":
        return "The seed of the training alone moves"
    draws = [cell.get("draw") or {} for cell in result["cells"] if _same_condition(cell, method)]
    seeds, orders = ({draw.get(key) for draw in draws} for key in ("seed", "order"))
    if len(seeds) > 1:
        mixed = len(orders) > 1 or "shuffled" in orders  # which every seed does in its own way
        return f"The choice {'and order of demonstrations alone move' if mixed else 'of demonstrations alone moves'}"
    return "The order of demonstrations alone moves"


def _same_condition(cell: Result, method: Result) -> bool:
    return all(cell.get(key) == method.get(key) for key in ("method", "template", "k", "train_rows", "pool_rows"))


def describe_mass(result: Result, methods: Sequence[Result]) -> list[str]:
    """Say how much of the probability the choices have together, condition by condition; nothing where none is scored.

    Of many conditions only the lowest and the highest are told.
    """
    known = sorted((each for each in methods if each.get("choice_mass") is not None), key=lambda m: m["choice_mass"])
    if not known:
        return []
    told = known if len(known) <= _TOLD else [known[0], known[-1]]
    shares = [f"{_name_of(each, result)} {_small_percent(each['choice_mass'])} %" for each in told]
    return [f"Probability of the choices together: {(', ' if len(known) <= _TOLD else ' to ').join(shares)}."]


def _small_percent(share: float) -> str:
    """Return a share as percent, with two digits where one after the point would hide it: 5.4, 0.0019."""
    return percent(share) if share >= 0.001 or not share else f"{100 * share:.2g}"


def _name_of(condition: Result, result: Result) -> str:
    """Return the name of a comparison's or a study's condition."""
    if "factors" not in condition:
        return _name(condition, result)
    return say_place(condition["factors"], [each["factors"] for each in result["methods"]])


def describe_failed(result: Result) -> list[str]:
    """Say of which conditions runs are right no more often than the most frequent label or, without labels, chance."""
    said = [
        f"{method['failed']} of {method['runs']} runs of {_name(method, result)}"
        if method["runs"] > 1
        else _name(method, result)
        for method in result["methods"]
        if method.get("failed")
    ]
    _, name = baseline(result) or (0.0, "chance")
    return [f"At or below {name if name == 'chance' else f'the {name}'}: {', '.join(said)}."] if said else []


def _range(method: Result) -> float:
    return float(method["accuracy"]["max"] - method["accuracy"]["min"])


def describe_methods(result: Result) -> list[str]:
    """Say who is ahead, the best prompt condition or LoRA, and who is where both saw the same records."""
    return [*_paired(result), *_equal_data(result)]


def _paired(result: Result) -> list[str]:
    paired = result.get("paired")
    if not paired:
        return []
    tried = sum(cell["method"] != "lora" and not cell.get("dropped") for cell in result["cells"])
    prompt, lora, runs = _name(paired["prompt"], result), paired["lora"], paired.get("lora_runs", 1)
    trained = _name({**lora, "draw": None}, result) + f" (mean of {runs} seeds)" if runs > 1 else _name(lora, result)
    median = f" of the run of median accuracy ({draw_name(lora.get('draw'))})" if runs > 1 else ""
    return [
        f"The best prompt is {prompt}. Beside {trained}, on the same records, {_verdict(paired)}.",
        f"Only the prompt is right on {paired['prompt_only_right']:,} of them, only LoRA on "
        f"{paired['lora_only_right']:,}: McNemar's exact test{median}, {p_value(paired['p_value'])}.",
        f"That prompt is the best of {tried:,} tried on these very records, which favours prompting.",
    ]


def _verdict(paired: Result) -> str:
    """`difference` and its interval are LoRA minus prompt."""
    difference, (low, high) = paired["difference"], paired["ci95"]
    if low <= 0 <= high:
        around = f"95 % interval over records {100 * low:+.1f} to {100 * high:+.1f}"
        return f"it is too close to call: LoRA minus prompt is {100 * difference:+.1f} points ({around})"
    ahead, ends = ("LoRA", (low, high)) if difference > 0 else ("the prompt", (-high, -low))
    return f"{ahead} is ahead by {percent(abs(difference))} points (95 % interval over records {percent_range(ends)})"


def _equal_data(result: Result) -> list[str]:
    sentences = []
    for lora in result["methods"]:
        same = [each for each in result["methods"] if _shows_what_it_saw(each, lora)]
        if same:
            figures = ", ".join(f"{condition_name(each)} {_accuracy(each)}" for each in (*same, lora))
            sentences.append(f"Equal data: {figures}.")
    return sentences


def _shows_what_it_saw(prompt: Result, lora: Result) -> bool:
    """Say whether the prompt shows as many records, in the same words, as LoRA was trained on."""
    rows, retrieves = lora.get("train_rows"), prompt.get("pool_rows")
    same = prompt.get("k") == rows and prompt.get("template") == lora.get("template")
    return bool(rows) and not retrieves and same


def _accuracy(method: Result) -> str:
    accuracy = method["accuracy"]
    return f"{percent(accuracy['mean'])} % [{percent_range(accuracy.get('ci95'))}]"


def describe_break_even() -> list[str]:
    """Say what the two counts of the break-even table mean."""
    return [
        "Counted in FLOP from the tokens measured here, accuracies taken as equal. Recomputed: each prompt "
        "computes its demonstrations again, or retrieves its own. Shared: they are computed once for all "
        "prompts. What a chain of thought writes is computed for each item either way. Never: prompting "
        "costs no more per item than the adapter."
    ]


def _name(condition: Result, result: Result) -> str:
    """Return the condition's name, and in brackets its draw, and its template where there are several."""
    template = str(condition.get("template") or "") if len(templates(result)) > 1 else ""
    details = ", ".join(part for part in (template, draw_name(condition.get("draw"))) if part)
    return condition_name(condition) + (f" ({details})" if details else "")
