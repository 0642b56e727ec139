"""Join a prompt and its answer into one training pair: the same rendering, the answer kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from promptkit.data.record import Record
from promptkit.prompts.prompt import Message, message_rows, move_join, render_completion, render_messages, render_text
from promptkit.templating.template import BoundTemplate

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt and the completion to learn: the rationale, if the template has one, and the target.

    `messages` are the prompt as chat turns (without the answer); empty unless asked for. `choices` is
    empty where the answer is free text, which a model must learn to end.
    """

    id: str
    prompt: str
    completion: str
    label: int | str | None
    messages: tuple[Message, ...] = ()
    demonstration_ids: tuple[str, ...] = ()
    template: str = ""
    template_hash: str = ""
    task: str = ""
    choices: tuple[str, ...] = ()
    task_hash: str = ""


def build_pair(
    bound: BoundTemplate, record: Record, demonstrations: Sequence[Record] = (), *, chat: bool = False
) -> Pair:
    """Return the training pair of one solved record, zero-shot or with demonstrations in its prompt.

    Raises TemplateError where the record has no label, or no rationale where the template needs one.
    """
    return Pair(
        id=record.id,
        prompt=render_text(bound, record, demonstrations),
        completion=render_completion(bound, record),
        label=record.label,
        messages=render_messages(bound, record, demonstrations) if chat else (),
        demonstration_ids=tuple([shown.id for shown in demonstrations]),
        template=bound.template.name,
        template_hash=bound.template.hash,
        task=bound.task.name,
        choices=bound.choices(record),
        task_hash=bound.task.hash,
    )


def pair_row(pair: Pair) -> dict[str, Any]:
    """Return the pair as one row of a data set; `messages` only where there are any.

    With messages, the completion is the content of the turn that answers them, as in `prompt_row`.
    """
    prompt, completion, choices = pair.prompt, pair.completion, pair.choices
    if pair.messages:
        prompt, completion, choices = move_pair_join(prompt, completion, choices)
    row: dict[str, Any] = {
        "id": pair.id,
        "prompt": prompt,
        "completion": completion,
        "label": pair.label,
        "choices": list(choices),
        "demonstration_ids": list(pair.demonstration_ids),
        "template": pair.template,
        "template_hash": pair.template_hash,
        "task": pair.task,
        "task_hash": pair.task_hash,
    }
    if pair.messages:
        row["messages"] = message_rows(pair.messages)
    return row


def move_pair_join(prompt: str, completion: str, choices: Sequence[str]) -> tuple[str, str, tuple[str, ...]]:
    """Return (prompt, completion, choices) with the white space that joins them at the end of the prompt.

    Choices of which the completion is none follow a text that is written first, and stay as they are.
    """
    alike = completion in choices
    prompt, (completion, *others) = move_join(prompt, [completion, *(choices if alike else ())])
    return prompt, completion, tuple(others if alike else choices)


def pair_table(bound: BoundTemplate, records: Sequence[Record], *, chat: bool = False) -> pyarrow.Table:
    """Return the zero-shot pairs of `records` as an Arrow table; a column `messages` only with `chat`.

    The same texts as `build_pair`, without an object per row: this is what large sets are made with.
    """
    import pyarrow

    text, texts, count = pyarrow.string(), pyarrow.list_(pyarrow.string()), len(records)

    def same(value: object, kind: pyarrow.DataType) -> pyarrow.Array:
        return pyarrow.repeat(pyarrow.scalar(value, kind), count)

    prompts = [render_text(bound, record) for record in records]
    completions = [render_completion(bound, record) for record in records]
    choices, own = bound.shared_choices, [bound.choices(record) for record in records]
    if chat and records:
        moved = map(move_pair_join, prompts, completions, own)
        prompts, completions, own = map(list, zip(*moved, strict=True))
        choices = own[0] if choices is not None else None
    columns = {
        "id": pyarrow.array([record.id for record in records], text),
        "prompt": pyarrow.array(prompts, text),
        "completion": pyarrow.array(completions, text),
        "label": pyarrow.array([record.label for record in records]),
        "choices": pyarrow.array(own, texts) if choices is None else same(choices, texts),
        "demonstration_ids": same([], texts),
        "template": same(bound.template.name, text),
        "template_hash": same(bound.template.hash, text),
        "task": same(bound.task.name, text),
        "task_hash": same(bound.task.hash, text),
    }
    if chat:
        columns["messages"] = pyarrow.array([message_rows(render_messages(bound, record)) for record in records])
    return pyarrow.table(columns)
