"""A task on which it is known how good each way is: a trainer that notes its rows, a scorer that goes by them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from promptkit.adapters.card import Adapter
from promptkit.models import Model
from promptkit.prompts.prompt import Prompt
from promptkit.scoring.predictions import Prediction, Table
from promptkit.training import train
from tests.conftest import Project

ITEMS = 60
SIZES = (8, 16, 32, 64)
#: The share of records that a method gets right, by how many rows it saw or showed, and by its seed.
Skill = Callable[[str, int, int], float]


def write_records(project: Project) -> None:
    """Write enough records for the sizes, no two alike, the labels in turn."""
    for split, count in (("train", 80), ("test", ITEMS)):
        rows = [json.dumps({"sentence": f"{split} film number {n}", "label": n % 2}) for n in range(count)]
        project.write(f"data/{split}.jsonl", "\n".join(rows) + "\n")


@cache
def _trained_once(model: Model) -> Adapter:
    """Return an adapter that has learned next to nothing."""
    pairs = [{"prompt": "Text: a film\nSentiment:", "completion": " positive"}]
    return train(model, pairs, rank=1, epochs=1)


def noting_trainer(model: Model, pairs: Any, **settings: Any) -> Adapter:
    """Copy one and the same adapter, and note beside it how many rows were to be learned and by which seed."""
    rows, out = len(pairs), Path(settings["out"])
    shutil.copytree(_trained_once(model).path, out)
    (out / "seen.json").write_text(json.dumps({"rows": rows, "seed": settings["seed"]}))
    tokens = {"tokens_trained": 20 * rows * settings["epochs"], "targets_trained": rows * settings["epochs"]}
    return replace(_trained_once(model), path=out, rows=rows, epochs=settings["epochs"], **tokens)


def skilled_scorer(skill: Skill) -> Callable[..., Table]:
    """Return a scorer that is right on the share of the records that `skill` says, the easy ones first."""

    def score(model: Model, prompts: Sequence[Prompt], **options: Any) -> Table:
        return Table(tuple(_answer(prompt, _share(model, prompt, skill)) for prompt in prompts), flops=1e6)

    return score


def _share(model: Model, prompt: Prompt, skill: Skill) -> float:
    note = _note(model)
    if note is not None:
        return skill("lora", note["rows"], note["seed"])
    shown = prompt.demonstration_ids
    return skill("few-shot" if shown else "zero-shot", len(shown), 0)


def _note(model: Model) -> dict[str, int] | None:
    """Return what an adapter noted, wherever the model that holds it says it is from."""
    path = Path(model.name, "seen.json")
    return dict(json.loads(path.read_text())) if path.is_file() else None


def _answer(prompt: Prompt, share: float) -> Prediction:
    difficulty = int(hashlib.sha256(prompt.id.encode()).hexdigest()[:8], 16) / 2**32
    label = int(prompt.label or 0)
    predicted = label if difficulty < share else 1 - label
    logprobs = (-0.1, -1.0) if predicted == 0 else (-1.0, -0.1)
    return Prediction(prompt.id, logprobs, predicted, label)
