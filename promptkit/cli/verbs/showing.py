"""Show a record of a task exactly as the model will see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from promptkit.building.build import (
    Demonstrations,
    default_selection,
    no_demonstrations,
    take_pool,
    take_records,
)
from promptkit.data.local import Data
from promptkit.data.tasks import load_task
from promptkit.demonstrations import Draw
from promptkit.prompts.prompt import build_prompt, check_system, render_answer, render_pieces, trim_answer
from promptkit.report.prompt_view import View
from promptkit.templating.binding import bind_matching
from promptkit.templating.template import BoundTemplate

_UNFINISHED = "\ufffd"  # what tokenizers make of a character whose bytes are not all there
_LONGEST_CHARACTER = 4  # bytes, and tokens at most


def show_prompts(
    task: str,
    *,
    model: str = "tiny",
    templates: Sequence[str] = (),
    data: Data | None = None,
    shots: Sequence[int] = (0,),
    selection: str | None = None,
    order: str | None = None,
    seed: int = 0,
    split: str | None = None,
    chat: bool = False,
    system: str = "system",
    limit: int = 1,
    trust_remote_code: bool = False,
) -> list[View]:
    """Return what the model will see of the first `limit` records, under every template asked for.

    Without `split` they are test records, of one file of the half that is tested on.
    """
    from promptkit.models import load_encoder

    check_system(system, chat=chat)
    loaded, encoder = load_task(task), load_encoder(model, trust_remote_code=trust_remote_code)
    queries = list(take_records(loaded, split, "test", limit, seed, data, labelled=False))
    give: Callable[..., Any] = no_demonstrations
    if any(shots):
        draw = Draw(selection or default_selection(loaded), order or "given", seed, seed)
        give = Demonstrations(take_pool(loaded, split, data=data, seed=seed), draw)
    return [
        _view(encoder, bound, query, give(query, k), chat)
        for bound in bind_matching(loaded, templates, system=system)
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
    end = encoder.answer_end(prompt.messages) if completion and completion not in prompt.choices else ()
    choices = list(prompt.choices)
    if chat:
        choices = choices if bound.template.is_cot else list(map(trim_answer, choices))
        prefix = encoder.chat_prefix(prompt.messages)
        completion = encoder.chat_completion(prompt.messages, completion) if completion else ""
    joined = encoder.join(prefix, completion, chat=chat) if completion else None
    ids = (*joined.ids, *end) if joined else encoder.encode(prefix, chat=chat)
    trained = joined.start if joined else len(ids)
    return View(
        query.id,
        bound.template.name,
        parts,
        choices,
        [(kind, len(encoder.encode(text, chat=True))) for kind, text in parts],
        [(text, index >= trained) for index, text in enumerate(_token_texts(encoder, ids))],
    )


def _token_texts(encoder: Any, ids: Sequence[int]) -> list[str]:
    """Return the text of every token; of tokens that share a character, the last one has it and the others none."""
    texts: list[str] = []
    begun: list[int] = []
    for token in ids:
        begun.append(token)
        text = str(encoder.tokenizer.decode(begun, skip_special_tokens=False, clean_up_tokenization_spaces=False))
        unfinished = text.endswith(_UNFINISHED) and len(begun) < _LONGEST_CHARACTER
        texts.append("" if unfinished else text)
        begun = begun if unfinished else []
    if begun:
        texts[-1] = text
    return texts
