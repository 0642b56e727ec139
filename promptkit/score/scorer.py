"""Prompts into a table: what the model writes, how likely it finds each choice, and what that took."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from promptkit.models import Model
from promptkit.prompt import Prompt
from promptkit.score.answers import read_answer, same_answer
from promptkit.score.rows import read_prompts
from promptkit.score.sheets import Sheet, check_window, list_sequences, open_sheets
from promptkit.score.table import Prediction, Table
from promptkit.score.tree import build_tree

if TYPE_CHECKING:
    from promptkit.score.likelihood import Usage


def score(
    model: Model,
    prompts: Iterable[Prompt | Mapping[str, Any]],
    *,
    chat: bool = False,
    batch_tokens: int = 4096,
    progress: Callable[[int, int], None] | None = None,
) -> Table:
    """Return what the model says to every prompt: choices by log-likelihood, free text by writing and reading.

    A choice's score is the sum of its tokens' log-likelihoods (nats) in one joint encoding with its prompt.
    Where a prompt has something to generate, that is written first (greedily); choices are then scored after
    it, or an answer is read from it. Plain rows `{"prompt", "choices", "label"?, "id"?, "messages"?}` are taken
    too. Scores depend neither on the order of the prompts nor on `batch_tokens`, the most tokens in one forward
    pass, beyond rounding. `progress` is called with (prompts done, prompts in all).

    Raises DataError for a malformed row, WindowError for a prompt longer than the model's window, ModelError
    where chat turns cannot be rendered or the tokenizer does not fit the network.
    """
    sheets = open_sheets(model, read_prompts(prompts, chat=chat), chat)
    check_window(model, sheets)
    from promptkit.score.run import run_sheets  # loads torch, which importing promptkit must not

    usage, note = run_sheets(model, sheets, chat=chat, batch_tokens=batch_tokens, progress=progress)
    return _make_table(sheets, usage, note)


def _make_table(sheets: Sequence[Sheet], usage: Usage, note: str | None) -> Table:
    tree, _ = build_tree(list_sequences(sheets))
    read = [sheet.written for sheet in sheets if sheet.written and not sheet.joined]
    return Table(
        predictions=tuple(map(_predict, sheets)),
        tokens_prompted=sum(sheet.tokens_prompted for sheet in sheets),
        tokens_computed=usage.tokens,
        tokens_unique=tree.unique_tokens + sum(written.tokens for written in read),
        tokens_generated=sum(sheet.written.tokens for sheet in sheets if sheet.written),
        flops=usage.flops,
        spanning=sum(any(joined.spans for joined in sheet.joined) for sheet in sheets),
        unfinished=sum(not sheet.written.finished for sheet in sheets if sheet.written),
        notes=(note,) if note else (),
    )


def _predict(sheet: Sheet) -> Prediction:
    prompt, written = sheet.prompt, sheet.written
    predicted: int | str | None
    if sheet.logprobs:
        predicted = sheet.logprobs.index(max(sheet.logprobs))
    else:
        predicted = _read(prompt, written.text if written else "")
    return Prediction(
        id=prompt.id,
        logprobs=sheet.logprobs,
        predicted=predicted,
        label=prompt.label,
        generated=written.text if written else None,
        spans=any(joined.spans for joined in sheet.joined),
    )


def _read(prompt: Prompt, text: str) -> int | str | None:
    """Return the answer that a text gives: where there are choices, the index of the one it names."""
    pattern = prompt.generation.answer if prompt.generation else None
    answer = read_answer(text, pattern, template=prompt.template) if pattern else text.strip() or None
    if not prompt.choices:
        return answer
    return next((index for index, choice in enumerate(prompt.choices) if same_answer(answer, choice)), None)
