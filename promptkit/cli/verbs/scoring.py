"""Score a task under every template and number of shots that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from promptkit.data.tasks import load_task
from promptkit.experiments.compare import compare
from promptkit.experiments.plan import METHODS
from promptkit.templating.binding import bind_matching


def score_task(task: str, *, shots: Sequence[int], templates: Sequence[str], **settings: Any) -> dict[str, Any]:
    """Return the result of scoring a task under every template and number of shots, without training.

    The object is that of `compare`; with one cell its predictions are in `rows`. Arguments are those of
    `compare`; 0 among `shots` is zero-shot.
    """
    kinds = {bound.template.is_cot for bound in bind_matching(load_task(task), templates)}
    wanted = {"zero-shot"} if 0 in shots else set()
    wanted |= {"few-shot"} if any(shots) else set()
    methods = [name for name, reasons in METHODS.items() if reasons in kinds and name.removesuffix("-cot") in wanted]
    settings["order"] = settings.get("order") or "given"
    few = tuple(k for k in shots if k)
    return compare(task, methods=tuple(methods), templates=tuple(templates), shots=few or (1,), rows=True, **settings)
