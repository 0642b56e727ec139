"""Check prompts, and read plain rows as prompts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import combinations
from typing import Any

from promptkit.data.answers import same_answer
from promptkit.errors import DataError
from promptkit.export.formats import check_choices, read_turn, refuse_unplaced
from promptkit.prompts.prompt import Prompt, place_system, prompt_from_row

#: Keys of a plain row under which it may bring prompts to calibrate by.
CONTENT_FREE = ("content_free", "domain")


def read_prompts(
    rows: Iterable[Prompt | Mapping[str, Any]], *, chat: bool = False, system: str = "system", first: int = 0
) -> list[Prompt]:
    """Return `rows` as prompts; a plain row without an id gets its number, counted from `first`.

    With `system` "user" the instruction of chat turns is put in front of the first user's content.
    A plain row's `content_free` and `domain` are lists of prompts: texts or, for chat, lists of turns.
    Raises DataError, naming the row (counted from 1), where a key is missing or of the wrong kind, a choice is
    empty or there twice, the label is not one of them, there is nothing to score, or chat turns are asked for and
    missing.
    """
    prompts = []
    for number, row in enumerate(rows, start=first):
        where = f"row {number + 1}"
        if isinstance(row, Mapping):
            try:
                _check_row(row)
            except DataError as error:
                raise DataError(f"{where}: {error}") from error
            row = _add_content_free(prompt_from_row({"choices": (), **row, "id": _name(row, number)}), row)
        elif not isinstance(row, Prompt):
            raise DataError(f"{where} is a {type(row).__name__}: expected a Prompt or an object with a prompt")
        _check_prompt(row, f"{where} (id {row.id!r})", chat)
        prompts.append(_place_system(row, system) if chat and system != "system" else row)
    return prompts


def _place_system(prompt: Prompt, system: str) -> Prompt:
    content_free, domain = (
        tuple(_place_system(other, system) for other in others) for others in (prompt.content_free, prompt.domain)
    )
    messages = place_system(prompt.messages, system)
    return replace(prompt, messages=messages, content_free=content_free, domain=domain)


def _name(row: Mapping[str, Any], number: int) -> Any:
    return number if row.get("id") is None else row["id"]


def _check_row(row: Mapping[str, Any]) -> None:
    if not isinstance(row.get("prompt"), str):
        found = f"is {row['prompt']!r:.100}" if "prompt" in row else f"is missing, found {', '.join(map(str, row))}"
        raise DataError(f"'prompt' {found}: expected text")
    refuse_unplaced(row)
    choices = row.get("choices", ())
    if not isinstance(choices, list | tuple) or not all(isinstance(choice, str) for choice in choices):
        raise DataError(f"'choices' is {choices!r:.100}: expected a list of texts")
    turns = row.get("messages") or ()
    if not _are_turns(turns):
        raise DataError(f"'messages' is {turns!r:.100}: expected a list of objects with role and content")
    for turn in turns:
        read_turn(turn)
    generation = row.get("generation")
    wanted = {"stop", "max_tokens", "answer"}
    if generation is not None and not (isinstance(generation, Mapping) and wanted <= generation.keys()):
        raise DataError(f"'generation' is {generation!r:.100}: expected stop, max_tokens and answer")
    stop = generation["stop"] if generation else ()
    if not isinstance(stop, list | tuple) or not all(isinstance(text, str) for text in stop):
        raise DataError(f"the stop of 'generation' is {stop!r:.100}: expected a list of texts")
    for key in CONTENT_FREE:
        given = row.get(key) or ()
        if not isinstance(given, list | tuple) or not all(isinstance(each, str) or _are_turns(each) for each in given):
            raise DataError(f"{key!r} is {given!r:.100}: expected a list of prompts, texts or lists of turns")
        for turn in (turn for each in given if not isinstance(each, str) for turn in each):
            read_turn(turn)


@lru_cache(maxsize=1024)
def _find_twins(choices: tuple[str, ...], are_read: bool) -> str:
    """Say which choices are one: the same text or, where an answer is read, texts that answer the same."""
    if len(set(choices)) < len(choices):
        twin = next(choice for choice in choices if choices.count(choice) > 1)
        return f"choice {twin!r} is there {choices.count(twin)} times"
    pairs = combinations(choices, 2) if are_read else ()
    return next(
        (f"choices {one!r} and {other!r} are one answer" for one, other in pairs if same_answer(one, other)), ""
    )


def _are_turns(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(
        isinstance(turn, Mapping) and {"role", "content"} <= turn.keys() for turn in value
    )


def _add_content_free(prompt: Prompt, row: Mapping[str, Any]) -> Prompt:
    """Return a row's prompt with the content-free prompts that the row brings, each with the row's choices."""

    def read(key: str) -> tuple[Prompt, ...]:
        forms = [{"prompt": each} if isinstance(each, str) else {"messages": each} for each in row.get(key) or ()]
        return tuple(
            prompt_from_row({"id": f"{prompt.id}, {key} {number}", "prompt": "", "choices": prompt.choices, **form})
            for number, form in enumerate(forms)
        )

    return replace(prompt, content_free=read("content_free"), domain=read("domain"))


def _check_prompt(prompt: Prompt, where: str, chat: bool) -> None:
    choices = prompt.choices
    if not choices and prompt.generation is None:
        raise DataError(f"{where}: no choices, and nothing to generate: expected at least one choice")
    try:
        check_choices(choices, prompt.label, named=False)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    if twins := _find_twins(choices, bool(prompt.generation and prompt.generation.answer)):
        raise DataError(f"{where}: {twins}; nothing tells them apart: write other choices, or leave the row out")
    if chat and not prompt.messages:
        raise DataError(f"{where}: no messages: chat turns are needed for --chat, or score with --plain")
    for other in (*prompt.content_free, *prompt.domain):
        if prompt.generation is not None or not choices:
            raise DataError(f"{where}: content-free prompts calibrate choices; here the model writes first")
        if other.choices != choices:
            raise DataError(f"{where}: a content-free prompt has choices {other.choices}: expected {choices}")
        if chat and not other.messages:
            raise DataError(f"{where}: a content-free prompt is text: expected a list of turns, as for --chat")
        if not chat and not other.text and other.messages:
            raise DataError(f"{where}: a content-free prompt is a list of turns: expected text, or score with --chat")
