"""Prompts into token ids: what is to be written after each, and which tokens of its choices are scored."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from promptkit.errors import DataError, PromptkitError, WindowError
from promptkit.models import Model
from promptkit.prompt import Prompt
from promptkit.score.rows import read_prompts
from promptkit.score.tree import Tokens
from promptkit.score.writing import Request, Written
from promptkit.tokens import Joined


@dataclass(slots=True)
class Sheet:
    """One prompt on its way to a prediction.

    `text` is what stands before the choices: the prompt, rendered as chat turns where asked for, and then what
    was written. `choices` are what is scored behind it: in a chat, where nothing was written, as the chat template puts
    them into the assistant's turn. `joined` holds a joint encoding of each; none where an answer is read.
    `token_logprobs` holds the log-likelihoods (nats) of every such choice's tokens, once it is scored.
    """

    prompt: Prompt
    text: str
    request: Request | None = None
    joined: tuple[Joined, ...] = ()
    choices: tuple[str, ...] = ()
    written: Written | None = None
    token_logprobs: tuple[tuple[float, ...], ...] = ()

    @property
    def logprobs(self) -> tuple[float, ...]:
        """The log-likelihood of every scored choice: the sum over its tokens, in nats."""
        return tuple(map(math.fsum, self.token_logprobs))

    @property
    def scores_choices(self) -> bool:
        """Whether the choices are scored, not an answer read from what was written."""
        generation = self.prompt.generation
        return bool(self.prompt.choices) and (generation is None or generation.answer is None)

    @property
    def length(self) -> int:
        """The most tokens that this takes: prompt, writing at its limit, longest choice."""
        read = max((len(joined.ids) for joined in self.joined), default=0)
        if self.request is None:
            return read
        return max(read, len(self.request.ids)) + self.request.max_tokens

    @property
    def tokens_prompted(self) -> int:
        """What a tool that shares nothing computes: the writing, and every choice at full length."""
        scored = sum(len(joined.ids) for joined in self.joined)
        written = len(self.request.ids) + self.written.tokens if self.request and self.written else 0
        return scored + written


def prompt_lengths(model: Model, prompts: Iterable[Prompt | Mapping[str, Any]], *, chat: bool = False) -> list[int]:
    """Return per prompt the most tokens it takes: prompt, writing at its limit, and longest choice."""
    return [sheet.length for sheet in open_sheets(model, read_prompts(prompts, chat=chat), chat)]


def open_sheets(model: Model, prompts: Sequence[Prompt], chat: bool) -> list[Sheet]:
    """Return a sheet per prompt, encoded as it is before anything is written."""
    encoder = model.encoder
    sheets = [Sheet(prompt, encoder.chat_prefix(prompt.messages) if chat else prompt.text) for prompt in prompts]
    writing = [sheet for sheet in sheets if sheet.prompt.generation]
    encoded = encoder.encode_all([sheet.text for sheet in writing], chat=chat)
    for sheet, ids in zip(writing, encoded, strict=True):
        if generation := sheet.prompt.generation:
            start = tuple(ids) or (encoder.opening_token(),)
            ends = encoder.answer_end(sheet.prompt.messages) if chat else ()
            sheet.request = Request(start, generation.stop, generation.max_tokens, ends=ends)
    join_choices(model, sheets, chat)
    return sheets


def copy_sheet(sheet: Sheet, samples: int) -> list[Sheet]:
    """Return a sheet per sample of what is to be written on it; itself where that is nothing, or one text."""
    if sheet.request is None or samples == 1:
        return [sheet]
    return [replace(sheet, request=replace(sheet.request, sample=sample)) for sample in range(samples)]


def join_choices(model: Model, sheets: Sequence[Sheet], chat: bool) -> None:
    """Encode every choice behind its sheet's text as it is now.

    Raises DataError where the tokenizer makes the same tokens of two choices, or none of one: the first would always
    win, or an end of the prompt would be scored in its place.
    """
    scored = [sheet for sheet in sheets if sheet.scores_choices]
    for sheet in scored:
        sheet.choices = _render_choices(model, sheet, chat)
    pairs = [(sheet.text, choice) for sheet in scored for choice in sheet.choices]
    joined = iter(model.encoder.join_all(pairs, chat=chat))
    for sheet in scored:
        sheet.joined = tuple(next(joined) for _ in sheet.prompt.choices)
        _check_distinct(model, sheet, chat)


def _check_distinct(model: Model, sheet: Sheet, chat: bool) -> None:
    """Raise DataError for choices that cannot be told apart by their tokens."""
    seen: dict[Tokens, str] = {}
    start = min(joined.start for joined in sheet.joined)  # what stands before is the same for all
    for joined, choice in zip(sheet.joined, sheet.prompt.choices, strict=True):
        if (twin := seen.setdefault(joined.ids[start:], choice)) is not choice:
            raise DataError(_say_alike(model, sheet.prompt, f"choices {twin!r} and {choice!r} are the same tokens"))
        if joined.spans and _adds_nothing(joined, model.encoder.encode(sheet.text, chat=chat)):
            raise DataError(_say_alike(model, sheet.prompt, f"choice {choice!r} has no token of its own"))


def _adds_nothing(joined: Joined, before: Sequence[int]) -> bool:
    """Whether a prompt and its choice are the tokens of the prompt alone; an opening token may stand in front."""
    return tuple(before) in (joined.ids, joined.ids[1:])


def _say_alike(model: Model, prompt: Prompt, found: str) -> str:
    where = f", template {prompt.template!r}" if prompt.template else ""
    words = "give the labels other words in the template ({% set labels = … %})" if prompt.template else "write others"
    return (
        f"prompt {prompt.id!r}{where}: {found} to the tokenizer of model {model.name!r}, which does not know some "
        f"of their characters or does not tell them apart; {words}, or use another model"
    )


def find_faults(
    model: Model, prompts: Iterable[Prompt | Mapping[str, Any]], *, chat: bool = False
) -> dict[int, PromptkitError]:
    """Return why prompts cannot be scored, each on its own, by their positions; those that can be are not there."""
    faults: dict[int, PromptkitError] = {}
    for position, row in enumerate(prompts):
        try:
            for prompt in read_prompts([row], chat=chat, first=position):
                check_window(model, open_sheets(model, [prompt, *prompt.content_free, *prompt.domain], chat))
        except PromptkitError as error:
            faults[position] = error
    return faults


def list_sequences(sheets: Sequence[Sheet]) -> list[Tokens]:
    """The sequences that the network is to run, or has run: all but the last token, which is only predicted."""
    written = [
        (*sheet.request.ids, *(sheet.written.ids[:-1] if sheet.written else ())) for sheet in sheets if sheet.request
    ]
    return [*written, *(joined.ids[:-1] for sheet in sheets for joined in sheet.joined)]


def list_ids(sheets: Sequence[Sheet]) -> list[Tokens]:
    """All tokens that stand on the sheets, the last of every choice included."""
    requests = [sheet.request.ids for sheet in sheets if sheet.request]
    return [*requests, *(joined.ids for sheet in sheets for joined in sheet.joined)]


def check_window(model: Model, sheets: Sequence[Sheet]) -> None:
    """Raise WindowError for the first prompt that is longer than the model's window."""
    for sheet in sheets:
        if sheet.length > model.window:
            limit = sheet.request.max_tokens if sheet.request else 0
            writing = f" ({limit} of them to be written)" if limit else ""
            raise WindowError(
                f"prompt {sheet.prompt.id!r} takes {sheet.length} tokens{writing}, but the window of model "
                f"{model.name!r} is {model.window}: use fewer or shorter demonstrations, or another model"
            )


def _render_choices(model: Model, sheet: Sheet, chat: bool) -> tuple[str, ...]:
    """The choices as they follow the text: a chat template has its say, unless the turn has begun already."""
    prompt = sheet.prompt
    if not chat or (sheet.written and sheet.written.text):
        return prompt.choices
    return tuple(model.encoder.chat_completion(prompt.messages, choice) for choice in prompt.choices)
