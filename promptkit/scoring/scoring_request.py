"""Encode prompts as scoring requests: what to generate after each, and which tokens of its choices to score."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from promptkit.errors import DataError, PromptkitError, WindowError
from promptkit.models import Model
from promptkit.models.tokens import Joined
from promptkit.prompts.prompt import Prompt
from promptkit.scoring.decoding_state import GenerationRequest, Written
from promptkit.scoring.prefix_tree import Tokens
from promptkit.scoring.prompt_rows import read_prompts


@dataclass(slots=True)
class ScoringRequest:
    """One prompt on its way to a prediction.

    `text` is what stands before the choices: the prompt, rendered as chat turns where asked for, and then what
    was written. `choices` are what is scored behind it: in a chat, where nothing was written, as the chat template puts
    them into the assistant's turn. `joined` holds a joint encoding of each; none where an answer is read.
    `token_logprobs` holds the log-likelihoods (nats) of every such choice's tokens, once it is scored.
    """

    prompt: Prompt
    text: str
    request: GenerationRequest | None = None
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
    return [item.length for item in open_requests(model, read_prompts(prompts, chat=chat), chat)]


def open_requests(model: Model, prompts: Sequence[Prompt], chat: bool) -> list[ScoringRequest]:
    """Return a request per prompt, encoded as it is before anything is written."""
    encoder = model.encoder
    items = [
        ScoringRequest(prompt, encoder.chat_prefix(prompt.messages) if chat else prompt.text) for prompt in prompts
    ]
    writing = [item for item in items if item.prompt.generation]
    encoded = encoder.encode_all([item.text for item in writing], chat=chat)
    for item, ids in zip(writing, encoded, strict=True):
        if generation := item.prompt.generation:
            start = tuple(ids) or (encoder.opening_token(),)
            ends = encoder.answer_end(item.prompt.messages) if chat else ()
            item.request = GenerationRequest(start, generation.stop, generation.max_tokens, ends=ends)
    join_choices(model, items, chat)
    return items


def copy_request(item: ScoringRequest, samples: int) -> list[ScoringRequest]:
    """Return a request per sample of what is to be generated; itself where that is nothing, or one text."""
    if item.request is None or samples == 1:
        return [item]
    return [replace(item, request=replace(item.request, sample=sample)) for sample in range(samples)]


def join_choices(model: Model, items: Sequence[ScoringRequest], chat: bool) -> None:
    """Encode every choice behind its request's text as it is now.

    Raises DataError where the tokenizer makes the same tokens of two choices, or none of one: the first would always
    win, or an end of the prompt would be scored in its place.
    """
    scored = [item for item in items if item.scores_choices]
    for item in scored:
        item.choices = _render_choices(model, item, chat)
    pairs = [(item.text, choice) for item in scored for choice in item.choices]
    joined = iter(model.encoder.join_all(pairs, chat=chat))
    for item in scored:
        item.joined = tuple(next(joined) for _ in item.prompt.choices)
        _check_distinct(model, item, chat)


def _check_distinct(model: Model, item: ScoringRequest, chat: bool) -> None:
    """Raise DataError for choices that cannot be told apart by their tokens."""
    seen: dict[Tokens, str] = {}
    start = min(joined.start for joined in item.joined)  # what stands before is the same for all
    for joined, choice in zip(item.joined, item.prompt.choices, strict=True):
        if (twin := seen.setdefault(joined.ids[start:], choice)) is not choice:
            raise DataError(_say_alike(model, item.prompt, f"choices {twin!r} and {choice!r} are the same tokens"))
        if joined.spans and _adds_nothing(joined, model.encoder.encode(item.text, chat=chat)):
            raise DataError(_say_alike(model, item.prompt, f"choice {choice!r} has no token of its own"))


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
                check_window(model, open_requests(model, [prompt, *prompt.content_free, *prompt.domain], chat))
        except PromptkitError as error:
            faults[position] = error
    return faults


def list_sequences(items: Sequence[ScoringRequest]) -> list[Tokens]:
    """The sequences that the network is to run, or has run: all but the last token, which is only predicted."""
    written = [(*item.request.ids, *(item.written.ids[:-1] if item.written else ())) for item in items if item.request]
    return [*written, *(joined.ids[:-1] for item in items for joined in item.joined)]


def list_ids(items: Sequence[ScoringRequest]) -> list[Tokens]:
    """All tokens of the requests, the last of every choice included."""
    requests = [item.request.ids for item in items if item.request]
    return [*requests, *(joined.ids for item in items for joined in item.joined)]


def check_window(model: Model, items: Sequence[ScoringRequest]) -> None:
    """Raise WindowError for the first prompt that is longer than the model's window."""
    for item in items:
        if item.length > model.window:
            limit = item.request.max_tokens if item.request else 0
            writing = f" ({limit} of them to be written)" if limit else ""
            raise WindowError(
                f"prompt {item.prompt.id!r} takes {item.length} tokens{writing}, but the window of model "
                f"{model.name!r} is {model.window}: use fewer or shorter demonstrations, or another model"
            )


def _render_choices(model: Model, item: ScoringRequest, chat: bool) -> tuple[str, ...]:
    """The choices as they follow the text: a chat template has its say, unless the turn has begun already."""
    prompt = item.prompt
    if not chat or (item.written and item.written.text):
        return prompt.choices
    return tuple(model.encoder.chat_completion(prompt.messages, choice) for choice in prompt.choices)
