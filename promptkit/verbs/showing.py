"""A task into what the model will see of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from promptkit.build import (
    Demonstrations,
    default_selection,
    no_demonstrations,
)
from promptkit.data import load_records
from promptkit.prompt import build_prompt, render_answer, render_pieces
from promptkit.select import Draw
from promptkit.task import load_task
from promptkit.template import BoundTemplate
from promptkit.verbs.templates import bind_matching


@dataclass(frozen=True)
class View:
    """One prompt as a reader sees it: its parts, its choices and, answer included, its tokens.

    `parts` are (kind, text), `counts` (kind, tokens), `tokens` (text, whether training puts a loss on it).
    """

    id: str
    template: str
    parts: list[tuple[str, str]]
    choices: list[str]
    counts: list[tuple[str, int]]
    tokens: list[tuple[str, bool]]


def show_prompts(
    task: str,
    *,
    model: str = "tiny",
    templates: Sequence[str] = (),
    data: str | None = None,
    shots: Sequence[int] = (0,),
    selection: str | None = None,
    order: str | None = None,
    seed: int = 0,
    split: str = "test",
    chat: bool = False,
    limit: int = 1,
) -> list[View]:
    """Return what the model will see of the first `limit` records, under every template asked for."""
    from promptkit.models import load_encoder

    loaded, encoder = load_task(task), load_encoder(model)
    queries = load_records(loaded, split, data=data, limit=limit, seed=seed, labelled=False)
    give: Callable[..., Any] = no_demonstrations
    if any(shots):
        draw = Draw(selection or default_selection(loaded), order or "given", seed, seed)
        give = Demonstrations(load_records(loaded, "train", data=data), draw)
    return [
        _view(encoder, bound, query, give(query, k), chat)
        for bound in bind_matching(loaded, templates)
        for k in shots
        for query in queries
    ]


def _view(encoder: Any, bound: BoundTemplate, query: Any, demonstrations: Sequence[Any], chat: bool) -> View:
    prompt = build_prompt(bound, query, demonstrations, chat=chat)
    parts = list(render_pieces(bound, query, demonstrations))
    prefix, completion = prompt.text, ""
    if query.label is not None and (query.rationale is not None or not bound.template.is_cot):
        answer = list(render_answer(bound, query))
        completion = "".join(text for _, text in answer)
        parts += answer
    if chat:
        prefix = encoder.chat_prefix(prompt.messages)
        completion = encoder.chat_completion(prompt.messages, completion) if completion else ""
    counts = [(kind, len(encoder.encode(text, chat=True))) for kind, text in parts]
    return View(
        query.id,
        bound.template.name,
        parts,
        list(prompt.choices),
        counts,
        _tokens(encoder, prefix, completion, chat),
    )


def _tokens(encoder: Any, prefix: str, completion: str, chat: bool) -> list[tuple[str, bool]]:
    if not completion:
        return [(_token_text(encoder, token), False) for token in encoder.encode(prefix, chat=chat)]
    joined = encoder.join(prefix, completion, chat=chat)
    return [(_token_text(encoder, token), index >= joined.start) for index, token in enumerate(joined.ids)]


def _token_text(encoder: Any, token: int) -> str:
    return str(encoder.tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False))
