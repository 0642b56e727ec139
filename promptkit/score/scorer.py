"""Prompts into a table: what the model writes, how likely it finds each choice, and what that took."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from promptkit.cost import shape_of
from promptkit.models import Model
from promptkit.prompt import Prompt
from promptkit.score.answers import read_answer, same_answer
from promptkit.score.forward import Network
from promptkit.score.generate import generate
from promptkit.score.likelihood import Usage, Way, prepare_scoring, run_scoring
from promptkit.score.probe import choose_way
from promptkit.score.rows import read_prompts
from promptkit.score.sheets import Sheet, check_window, join_choices, open_sheets
from promptkit.score.table import Prediction, Table
from promptkit.score.tree import Tokens, build_tree

Progress = Callable[[int, int], None]


def score(
    model: Model,
    prompts: Iterable[Prompt | Mapping[str, Any]],
    *,
    chat: bool = False,
    batch_tokens: int = 4096,
    progress: Progress | None = None,
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
    network, usage = Network(model), Usage(shape_of(model.network))
    network.check_ids(_run_ids(sheets))
    bar = _Bar(sheets, progress)
    with network.evaluating():
        tree, _ = build_tree(_run_ids(sheets))
        longest = max((sheet.length for sheet in sheets), default=0)
        way, note = choose_way(network, tree, longest, batch_tokens)
        _write(network, way, sheets, usage, batch_tokens, bar)
        join_choices(model, [sheet for sheet in sheets if sheet.written], chat)
        _score_choices(network, way, sheets, usage, batch_tokens, bar)
    return _make_table(sheets, usage, note)


def _write(network: Network, way: Way, sheets: Sequence[Sheet], usage: Usage, batch_tokens: int, bar: _Bar) -> None:
    """Let the model write where it has to, and put the result behind the text of the sheet."""
    writing = [(sheet, sheet.request) for sheet in sheets if sheet.request]
    requests = [request for _, request in writing]
    written = generate(network, way, requests, usage, batch_tokens=batch_tokens, report=bar.writing)
    for (sheet, _), result in zip(writing, written, strict=True):
        sheet.written = result
        sheet.text += result.text


def _score_choices(
    network: Network, way: Way, sheets: Sequence[Sheet], usage: Usage, batch_tokens: int, bar: _Bar
) -> None:
    """Fill in the log-likelihood of every choice that is to be scored."""
    joined = [(sheet, choice) for sheet in sheets for choice in sheet.joined]
    sequences = [(choice.ids, choice.start) for _, choice in joined]
    tree, row_of = build_tree([ids[:-1] for ids, _ in sequences])
    scoring = prepare_scoring(tree, row_of, sequences, usage, bar.scoring)
    run_scoring(network, way, scoring, batch_tokens)
    for (sheet, _), tokens in zip(joined, scoring.scores, strict=True):
        sheet.logprobs = (*sheet.logprobs, math.fsum(tokens))


class _Bar:
    """Turns what is written and what is scored into prompts done."""

    def __init__(self, sheets: Sequence[Sheet], progress: Progress | None) -> None:
        self.prompts, self.progress = len(sheets), progress
        self.to_write = sum(sheet.request is not None for sheet in sheets)
        self.to_score = sum(len(sheet.joined) for sheet in sheets)

    def writing(self, done: int) -> None:
        """Requests are written; where choices are scored afterwards, that is half of the work."""
        self._show(done / self.to_write * (0.5 if self.to_score else 1.0))

    def scoring(self, done: int) -> None:
        """Choices are scored."""
        before = 0.5 if self.to_write else 0.0
        self._show(before + done / self.to_score * (1.0 - before))

    def _show(self, share: float) -> None:
        if self.progress:
            self.progress(round(share * self.prompts), self.prompts)


def _make_table(sheets: Sequence[Sheet], usage: Usage, note: str | None) -> Table:
    tree, _ = build_tree(_run_ids(sheets))
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


def _run_ids(sheets: Sequence[Sheet]) -> list[Tokens]:
    """The sequences that the network is to run: all but the last token of each, which is only predicted."""
    written = [sheet.request.ids for sheet in sheets if sheet.request]
    return [*written, *(joined.ids[:-1] for sheet in sheets for joined in sheet.joined)]
