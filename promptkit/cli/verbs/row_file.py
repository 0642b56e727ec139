"""Score a file of ready-made prompts as one condition."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from promptkit.adapters.card import Asked, card_of, warn_of_other_form
from promptkit.analysis.cell_figures import LOW_MASS, LOW_MASS_MEANS, right_answers, summarize_predictions
from promptkit.analysis.sentences import describe_cautions
from promptkit.costs.flops import Cost, Meter
from promptkit.errors import DataError, PromptkitError
from promptkit.experiments.evaluate import prediction_row
from promptkit.experiments.executor import Track
from promptkit.prompts.prompt import Prompt, check_system
from promptkit.scoring.scoring_rules import (
    choose_readings,
    keep_needed,
    measure_cell,
    read_predictions,
    refuse_rows,
    show_rows,
    store_table,
)
from promptkit.scoring.self_consistency import VOTE_FIGURES
from promptkit.stats.majority import describe_majority, find_majority
from promptkit.storage.rows import number_rows, place_of


def score_file(
    source: str,
    *,
    model: str,
    chat: bool = False,
    system: str = "system",
    dtype: str = "float32",
    device: str | None = None,
    trust_remote_code: bool = False,
    batch_tokens: int | None = None,
    memory: int | None = None,
    limit: int | None = None,
    calibrate: Sequence[str] = (),
    track: Track | None = None,
    **sampling: Any,
) -> dict[str, Any]:
    """Return the result of scoring ready-made rows {"prompt", "choices", "label"?, "id"?} of a JSONL file.

    The object has the keys of `compare`'s, with one cell. Rows may bring `content_free` and `domain`, prompts
    to calibrate by. `sampling` are the samples, temperature, top_p and seed of `score`. Raises DataError, with file
    and line, for a row that is not one, and PromptkitError where `calibrate` or `sampling` asks for what the rows do
    not allow.
    """
    from promptkit.adapters.loading import load_model
    from promptkit.scoring import find_faults, score

    check_system(system, chat=chat)
    numbered = list(itertools.islice(_read_prompts(Path(source), chat, system), limit))
    prompts = [prompt for _, prompt in numbered]
    if not prompts:
        raise DataError(f"{source}: no rows; one object with `prompt` and `choices` per line is expected")
    names = choose_readings(calibrate, refuse_rows(prompts) if calibrate else {})
    prompts = keep_needed(prompts, names)
    _warn_of_other_form(model, prompts, chat, system)
    loaded = load_model(model, dtype=dtype, device=device, trust_remote_code=trust_remote_code)
    asked = {"batch_tokens": batch_tokens, "memory": memory}
    options = {**sampling, **{name: value for name, value in asked.items() if value is not None}}
    with Meter(loaded.device) as meter:
        try:
            table = score(loaded, prompts, chat=chat, progress=track("scoring") if track else None, **options)
        except PromptkitError as error:
            position, fault = next(iter(find_faults(loaded, prompts, chat=chat).items()), (None, error))
            if position is None:
                raise
            raise type(fault)(f"{place_of(Path(source), numbered[position][0])}: {fault}") from error
    cost = Cost(
        tokens_prompted=table.tokens_prompted,
        tokens_computed=table.tokens_computed,
        tokens_unique=table.tokens_unique,
        flops=table.flops,
        seconds=meter.seconds,
        peak_memory_bytes=meter.peak_memory_bytes,
    )
    result: dict[str, Any] = {"predictions": [prediction_row(prediction) for prediction in table.predictions]}
    if names:
        result["calibration"] = store_table(table, names)
    figures = summarize_predictions(result["predictions"], None)
    cell = {"method": "zero-shot", "template": None, "k": 0, "draw": None, **figures, "spanning": table.spanning}
    cell["cost"] = cost.as_dict()
    if readings := read_predictions(result):
        cell["calibrations"] = measure_cell(readings, [prompt.label for prompt in prompts], 0)
    majority = _find_majority(prompts)
    runs = [_one_run(cell, result["predictions"], has_majority=majority is not None)]
    cautions = describe_cautions(runs, majority, _shared_choices(prompts))
    return {
        "task": None,
        "model": model,
        "run": None,
        "labels": None,
        "chance": None,
        "majority": majority[1] if majority else None,
        "records": {"test": len(prompts)},
        "cells": [cell],
        "methods": [] if figures["accuracy"] is None else runs,
        "break_even": {},
        "cautions": cautions,
        "notes": [*table.notes, *cautions, *_say_low(figures["choice_mass"])],
        "rows": show_rows(result),
    }


def _warn_of_other_form(model: str, prompts: Sequence[Prompt], chat: bool, system: str) -> None:
    """Warn where the rows ask an adapter in another form than it was trained in, as far as they say their form."""
    templates = {prompt.template: prompt.template_hash for prompt in prompts if prompt.template}
    tasks = {prompt.task for prompt in prompts}
    shots = tuple({len(prompt.demonstration_ids) for prompt in prompts})
    card = card_of(model)
    if card and not (templates and len(tasks) == 1):  # rows that do not say are asked in nobody's template
        card = card.model_copy(update={"task": "", "template": "", "demonstrations": 0})
    warn_of_other_form(model, Asked(", ".join(tasks), templates, shots, chat, system), card)


def _say_low(mass: float | None) -> list[str]:
    return [f"{LOW_MASS_MEANS}: {100 * mass:.2g} %"] if mass is not None and mass < LOW_MASS else []


def _read_prompts(path: Path, chat: bool, system: str) -> Iterator[tuple[int, Prompt]]:
    from promptkit.scoring.prompt_rows import read_prompts

    for position, (number, row) in enumerate(number_rows(path)):
        try:
            [prompt] = read_prompts([row], chat=chat, system=system, first=position)
        except DataError as error:
            raise DataError(f"{place_of(path, number)}: {str(error).partition(': ')[2]}") from error
        yield number, prompt


def _shared_choices(prompts: Sequence[Prompt]) -> tuple[str, ...] | None:
    """Return the choices that all rows have, which are then labels; None where rows have choices of their own."""
    return prompts[0].choices or None if len({prompt.choices for prompt in prompts}) == 1 else None


def _find_majority(prompts: Sequence[Prompt]) -> tuple[str, float] | None:
    """Return the most frequent label and its rate; None where a row has none, or choices of its own."""
    choices = _shared_choices(prompts)
    if not choices or any(prompt.label is None for prompt in prompts):
        return None
    index, rate = find_majority([int(str(prompt.label)) for prompt in prompts])
    return choices[index], rate


def _one_run(cell: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], *, has_majority: bool) -> dict[str, Any]:
    """Return a single cell as the method of one run that it is."""
    labels = [row["label"] for row in rows]
    right = [right_answers({"predictions": rows})] if has_majority else None
    names = ("method", "template", "k", "unread", "choice_mass", *VOTE_FIGURES, "cost")
    kept = {key: cell[key] for key in names if key in cell}
    if "calibrations" in cell:
        kept["calibrations"] = [{**each, "accuracy": _one_spread(each)} for each in cell["calibrations"]]
    kept |= describe_majority([[row["predicted"] for row in rows]], right, labels)
    return {**kept, "train_rows": None, "runs": 1, "accuracy": _one_spread(cell), "macro_f1": None, "train_cost": None}


def _one_spread(figures: Mapping[str, Any]) -> dict[str, Any]:
    accuracy = figures["accuracy"]
    return {"mean": accuracy, "std": 0.0, "min": accuracy, "max": accuracy, "ci95": figures["ci95"]}
