"""A task into rows of prompts or training pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from promptkit.build import (
    iterate_pairs,
    iterate_prompts,
)
from promptkit.data import count_records
from promptkit.errors import DataError
from promptkit.evaluate import Progress
from promptkit.prompt import prompt_row
from promptkit.task import load_task
from promptkit.verbs.templates import bind_matching
from promptkit.work import Track

Rows = Iterator[dict[str, Any]]


def build_rows(
    task: str,
    kind: str,
    *,
    templates: Sequence[str] = (),
    shots: Sequence[int] = (0,),
    track: Track | None = None,
    **settings: Any,
) -> Rows:
    """Yield the rows of a data set of `prompts` or `pairs`, one template and number of shots after the other.

    `settings` are those of `build_prompts` or, where they apply, `build_pairs`.
    """
    loaded = load_task(task)
    settings = {name: value for name, value in settings.items() if value is not None}
    if kind == "pairs":
        unused = [name for name in ("selection", "order", "train_limit") if name in settings]
        if any(shots) or unused:
            raise DataError("training pairs are zero-shot: -k, --selection, --order and --train-limit go with prompts")
    split = settings.get("split") or {"pairs": "train"}.get(kind, "test")
    total = settings.get("limit") or count_records(loaded, split, settings.get("data"))
    for bound in bind_matching(loaded, templates):
        for k in shots:
            if kind == "pairs":
                rows = iterate_pairs(loaded, bound.template, **settings)
            else:
                rows = map(prompt_row, iterate_prompts(loaded, bound.template, k=k, **settings))
            yield from _tracked(rows, total, track(bound.template.name) if track and total else None)


def _tracked(rows: Iterable[dict[str, Any]], total: int | None, report: Progress | None) -> Rows:
    """Yield rows, reporting every hundredth of them."""
    for done, row in enumerate(rows, 1):
        yield row
        if report and total and (done % max(1, total // 100) == 0 or done == total):
            report(min(done, total), total)
