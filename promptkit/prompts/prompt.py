"""Join an instruction, demonstrations and a query into one in-context-learning prompt."""

from __future__ import annotations

import os.path
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from promptkit.data.record import Record
from promptkit.errors import PromptkitError
from promptkit.templating.template import BoundTemplate

#: The turns that may hold the instruction of a chat: its own, or the first user's.
SYSTEM = ("system", "user")
#: How an answer joins what asks for it in a chat: as a turn of its own, without the white space of a plain prompt.
TURN = "turn"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat: role is `system`, `user` or `assistant`."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Generation:
    """What the model must write before a prompt can be scored or read.

    Writing ends before the first of `stop`, or after `max_tokens`. `answer` is the regular expression
    that reads a free-text answer; None where choices are scored after the rationale.
    """

    stop: tuple[str, ...]
    max_tokens: int
    answer: str | None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A query ready to be answered.

    `text` is everything before the join, and `choices` are the rendered targets, exactly the texts
    that training would teach; empty where the answer is free text. `messages` say the same as chat
    turns and end with the query; empty unless asked for. `label` is an index into `choices`, or text.
    `content_free` and `domain` are the same prompt with nothing to go by in the query's place, and with random
    words of the task: what a calibration needs; empty unless asked for.
    """

    id: str
    text: str
    choices: tuple[str, ...]
    label: int | str | None
    messages: tuple[Message, ...] = ()
    demonstration_ids: tuple[str, ...] = ()
    template: str = ""
    template_hash: str = ""
    task: str = ""
    generation: Generation | None = None
    content_free: tuple[Prompt, ...] = ()
    domain: tuple[Prompt, ...] = ()


#: A piece of a prompt: its kind (a template's part, or "separator") and its text.
Piece = tuple[str, str]


def render_pieces(bound: BoundTemplate, query: Record, demonstrations: Sequence[Record] = ()) -> Iterator[Piece]:
    """Yield the pieces whose texts, put together, are the prompt up to the join."""
    separator = ("separator", bound.template.separator)
    if bound.instruction:
        yield "instruction", bound.instruction
        yield separator
    for record in demonstrations:
        yield "input", bound.input(record)
        yield from render_answer(bound, record)
        yield separator
    yield "input", bound.input(query)


def render_answer(bound: BoundTemplate, record: Record) -> Iterator[Piece]:
    """Yield what follows a record's input once it is solved: the rationale, if any, and the target."""
    if bound.template.is_cot:
        yield "rationale", bound.rationale(record)
    yield "target", bound.target(record)


def render_completion(bound: BoundTemplate, record: Record) -> str:
    """Return what follows a record's input once it is solved, as one text: what training teaches."""
    if bound.template.is_cot:
        return bound.rationale(record) + bound.target(record)
    return bound.target(record)


def render_text(bound: BoundTemplate, query: Record, demonstrations: Sequence[Record] = ()) -> str:
    """Return the prompt up to the join as one text: the pieces of `render_pieces`, at a third of their time."""
    separator = bound.template.separator
    shown = [bound.input(record) + render_completion(bound, record) + separator for record in demonstrations]
    return bound.head + "".join(shown) + bound.input(query)


def render_messages(bound: BoundTemplate, query: Record, demonstrations: Sequence[Record] = ()) -> tuple[Message, ...]:
    """Return the same as chat turns: instruction = system, a user and an assistant turn per demonstration.

    Answers begin as turns do, see `trim_answer`; the instruction stands where `bound.system` says.
    """
    turns = [Message("system", bound.instruction)] if bound.instruction else []
    for record in demonstrations:
        turns += [
            Message("user", bound.input(record)),
            Message("assistant", trim_answer(render_completion(bound, record))),
        ]
    return place_system((*turns, Message("user", bound.input(query))), bound.system)


def trim_answer(text: str) -> str:
    """Return an answer as the content of a chat turn: without the white space that joins it to a plain prompt.

    That is all white space at its beginning; a text of white space alone stays as it is.
    """
    return text.lstrip() or text


def move_join(prompt: str, completions: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Return (prompt, completions) with the white space that joins them at the end of the prompt.

    What they say together stays the same, and each completion is the content of a chat turn. Where completions begin
    with different white space, only what they share is moved.
    """
    spaces = [text[: len(text) - len(trim_answer(text))] for text in completions]
    shared = os.path.commonprefix(spaces)  # noqa: RUF071 - characters are meant
    return prompt + shared, tuple(text[len(shared) :] for text in completions)


def check_system(system: str, *, chat: bool = True) -> None:
    """Raise PromptkitError for what is no place for the instruction in a chat, and for one where there is no chat."""
    if system not in SYSTEM:
        raise PromptkitError(
            f"system is {system!r}: expected {' or '.join(SYSTEM)}, the turn that holds the instruction"
        )
    if system != SYSTEM[0] and not chat:
        raise PromptkitError(f"system {system!r} is for chat turns, and prompts are plain here; give --chat too")


def place_system(messages: tuple[Message, ...], system: str) -> tuple[Message, ...]:
    """Return chat turns with the instruction where `system` says: with "user" in front of the first user's content.

    A blank line stands between them.
    """
    check_system(system)
    told = [message.content for message in messages if message.role == "system"]
    rest = [message for message in messages if message.role != "system"]
    first = next((index for index, message in enumerate(rest) if message.role == "user"), None)
    if system == "system" or not told or first is None:
        return messages
    rest[first] = replace(rest[first], content="\n\n".join([*told, rest[first].content]))
    return tuple(rest)


def build_prompt(
    bound: BoundTemplate, query: Record, demonstrations: Sequence[Record] = (), *, chat: bool = False
) -> Prompt:
    """Return the prompt for one query; with `chat`, its chat turns too.

    Raises TemplateError where the template cannot render a record.
    """
    return Prompt(
        id=query.id,
        text=render_text(bound, query, demonstrations),
        choices=bound.choices(query),
        label=query.label,
        messages=render_messages(bound, query, demonstrations) if chat else (),
        demonstration_ids=tuple([record.id for record in demonstrations]),
        template=bound.template.name,
        template_hash=bound.template.hash,
        task=bound.task.name,
        generation=_generation(bound, query),
    )


def _generation(bound: BoundTemplate, query: Record) -> Generation | None:
    """Return what is to be written: nothing, or up to a stop sequence or the start of a next demonstration."""
    template, choices = bound.template, bound.choices(query)
    if choices and not template.is_cot:
        return None
    start = os.path.commonprefix(choices).rstrip()  # noqa: RUF071 - characters are meant
    stop = template.stop or tuple(text for text in (start, template.separator) if text)
    return Generation(stop, template.max_tokens, None if choices else template.answer)


def message_rows(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Return chat turns in the form that tokenizers and data sets take."""
    return [{"role": message.role, "content": message.content} for message in messages]


def prompt_from_row(row: Mapping[str, Any]) -> Prompt:
    """Return the prompt that `prompt_row` wrote as a row; keys that are missing take their defaults."""
    generation = row.get("generation")
    return Prompt(
        id=str(row["id"]),
        text=row["prompt"],
        choices=tuple(row["choices"]),
        label=row.get("label"),
        messages=tuple(Message(turn["role"], turn["content"]) for turn in row.get("messages") or ()),
        demonstration_ids=tuple(row.get("demonstration_ids") or ()),
        template=row.get("template") or "",
        template_hash=row.get("template_hash") or "",
        task=row.get("task") or "",
        generation=Generation(tuple(generation["stop"]), generation["max_tokens"], generation["answer"])
        if generation
        else None,
    )


def prompt_row(prompt: Prompt) -> dict[str, Any]:
    """Return the prompt as one row of a data set; `messages` only where there are any.

    With messages, choices are the contents of the turn that answers them, and what joins them to a plain prompt ends
    that (see `move_join`): the row is the same prompt in both forms.
    """
    writing = prompt.generation
    text, choices = prompt.text, prompt.choices
    if prompt.messages and choices and not writing:
        text, choices = move_join(text, choices)
    row: dict[str, Any] = {
        "id": prompt.id,
        "prompt": text,
        "choices": list(choices),
        "label": prompt.label,
        "demonstration_ids": list(prompt.demonstration_ids),
        "template": prompt.template,
        "template_hash": prompt.template_hash,
        "task": prompt.task,
        "generation": None,
    }
    if prompt.messages:
        row["messages"] = message_rows(prompt.messages)
    if writing:
        row["generation"] = {"stop": list(writing.stop), "max_tokens": writing.max_tokens, "answer": writing.answer}
    return row
