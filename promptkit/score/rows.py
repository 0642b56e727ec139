"""Prompts and plain rows into checked prompts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from promptkit.errors import DataError
from promptkit.prompt import Prompt, prompt_from_row


def read_prompts(rows: Iterable[Prompt | Mapping[str, Any]], *, chat: bool = False) -> list[Prompt]:
    """Return `rows` as prompts; a plain row without an id gets its number, counted from 0.

    Raises DataError, naming the row (counted from 1), where a key is missing or of the wrong kind, a choice is
    empty, the label is not one of them, there is nothing to score, or chat turns are asked for and missing.
    """
    prompts = []
    for number, row in enumerate(rows):
        where = f"row {number + 1}"
        if isinstance(row, Mapping):
            _check_row(row, where)
            row = prompt_from_row({"id": str(number), "choices": (), **row})
        elif not isinstance(row, Prompt):
            raise DataError(f"{where} is a {type(row).__name__}: expected a Prompt or an object with a prompt")
        _check_prompt(row, f"{where} (id {row.id!r})", chat)
        prompts.append(row)
    return prompts


def _check_row(row: Mapping[str, Any], where: str) -> None:
    if not isinstance(row.get("prompt"), str):
        found = f"is {row['prompt']!r}" if "prompt" in row else f"is missing, found {', '.join(map(str, row))}"
        raise DataError(f"{where}: 'prompt' {found}: expected text")
    choices = row.get("choices", ())
    if not isinstance(choices, list | tuple) or not all(isinstance(choice, str) for choice in choices):
        raise DataError(f"{where}: 'choices' is {choices!r}: expected a list of texts")
    turns = row.get("messages") or ()
    if not all(isinstance(turn, Mapping) and {"role", "content"} <= turn.keys() for turn in turns):
        raise DataError(f"{where}: 'messages' is {turns!r}: expected a list of objects with role and content")
    generation = row.get("generation")
    wanted = {"stop", "max_tokens", "answer"}
    if generation is not None and not (isinstance(generation, Mapping) and wanted <= generation.keys()):
        raise DataError(f"{where}: 'generation' is {generation!r}: expected stop, max_tokens and answer")


def _check_prompt(prompt: Prompt, where: str, chat: bool) -> None:
    choices, label = prompt.choices, prompt.label
    if not choices and prompt.generation is None:
        raise DataError(f"{where}: no choices, and nothing to generate: expected at least one choice")
    if "" in choices:
        raise DataError(f"{where}: choice {choices.index('')} is empty: expected at least one character")
    if chat and not prompt.messages:
        raise DataError(f"{where}: no messages: chat turns are needed for --chat, or score with --plain")
    if label is None or (isinstance(label, str) and not choices):
        return
    if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < len(choices):
        allowed = f"an index from 0 to {len(choices) - 1}" if choices else "text"
        raise DataError(f"{where}: label {label!r} is not {allowed}")
