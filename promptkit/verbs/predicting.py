"""A file of records into labels, by an adapter."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from promptkit.data import iterate_records
from promptkit.errors import RunError, TemplateError
from promptkit.prompt import build_prompt
from promptkit.task import load_task
from promptkit.template import BoundTemplate, load_template
from promptkit.work import Track

Rows = Iterator[dict[str, Any]]
#: Records that `predict` scores at a time; results are written as each such part is done.
PREDICT_ROWS = 512


def predict_file(
    file: str,
    adapter: str,
    *,
    task: str | None = None,
    template: str | None = None,
    dtype: str = "float32",
    device: str | None = None,
    memory: int | None = None,
    track: Track | None = None,
) -> tuple[str, Rows]:
    """Return the task of an adapter and, as an iterator, a row per record of `file` with its predicted label.

    A row is {"id", "predicted": label, "scores": {label: nats}}; "predicted" is None where a free-text
    answer could not be read. `task` and `template` say where those of the training are found now, if not
    under their names. Raises TemplateError where the template has changed since the training.
    """
    from promptkit.adapter import read_card
    from promptkit.models import load_model

    card = read_card(adapter)
    if not card.template or "," in card.template:
        raise RunError(f"{adapter}: was not trained from one template, so records cannot be rendered for it")
    trained, asking = load_task(task or card.task), load_template(template or card.template)
    if asking.hash != card.template_hash:
        raise TemplateError(
            f"{asking.path}: has changed since the adapter {adapter} was trained with it; "
            "restore the file, or train again"
        )
    model = load_model(adapter, dtype=dtype, device=device)
    records = iterate_records(trained, "test", data=file, labelled=False)
    return trained.name, _predict(model, asking.bind(trained), records, card.settings.chat, memory, track)


def _predict(
    model: Any, bound: BoundTemplate, records: Iterable[Any], chat: bool, memory: int | None, track: Track | None
) -> Rows:
    from promptkit.score import score

    iterator = iter(records)
    while part := list(itertools.islice(iterator, PREDICT_ROWS)):
        prompts = [build_prompt(bound, record, chat=chat) for record in part]
        table = score(model, prompts, chat=chat, memory=memory, progress=track("predicting") if track else None)
        for record, prediction in zip(part, table.predictions, strict=True):
            labels = bound.task.labels or record.choices or ()
            index = prediction.predicted
            yield {
                "id": record.id,
                "predicted": labels[index] if isinstance(index, int) else index,
                "scores": {label: round(nats, 6) for label, nats in zip(labels, prediction.logprobs, strict=False)},
            }
