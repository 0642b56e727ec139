"""Score prompts: what the model writes, how likely it finds each choice, and what that took."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from promptkit.costs.memory import parse_size
from promptkit.data.answers import read_answer, same_answer
from promptkit.errors import PromptkitError
from promptkit.models import Model
from promptkit.prompts.prompt import Prompt, check_system
from promptkit.scoring.calibration import Likelihoods
from promptkit.scoring.predictions import Prediction, Sample, Table
from promptkit.scoring.prompt_rows import read_prompts
from promptkit.scoring.sampling import choose_sampling
from promptkit.scoring.scoring_request import ScoringRequest, check_window, copy_request, open_requests
from promptkit.scoring.self_consistency import count_votes

if TYPE_CHECKING:
    from promptkit.scoring.log_likelihood import Usage


def score(
    model: Model,
    prompts: Iterable[Prompt | Mapping[str, Any]],
    *,
    chat: bool = False,
    system: str = "system",
    batch_tokens: int = 4096,
    memory: int | str | None = None,
    samples: int = 1,
    temperature: float | None = None,
    top_p: float | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Table:
    """Return what the model says to every prompt: choices by log-likelihood, free text by writing and reading.

    A choice's score is the sum of its tokens' log-likelihoods (nats) in one joint encoding with its prompt.
    Where a prompt has something to generate, that is written first; choices are then scored after it, or an
    answer is read from it. It is the most likely text, token by token; with `samples` of 2 or more, so many texts
    are drawn at `temperature` (default 0.7) from the `top_p` likeliest tokens (default 1: all), and their answers
    vote. `seed` is that of the draws. Plain rows `{"prompt", "choices", "label"?, "id"?, "messages"?}` are taken
    too. `system` "user" puts the instruction of chat turns in front of the first user's content, for chat templates
    without a system turn. Content-free prompts that prompts bring are scored in the same pass, each once. Beyond
    rounding, scores depend neither on the order of the prompts nor on `batch_tokens`, the most tokens in one forward
    pass, nor on `memory`, what the work may take beside the weights (bytes, or a size such as "2GB"; default: half of
    what is free).
    `progress` is called with (prompts done, prompts in all).

    Raises PromptkitError where nothing is to be written that could be drawn, DataError for a malformed row,
    WindowError for a prompt longer than the model's window, ModelError where chat turns cannot be rendered or the
    tokenizer does not fit the network.
    """
    sampling = choose_sampling(samples, temperature, top_p, seed)
    check_system(system, chat=chat)
    asked = read_prompts(prompts, chat=chat, system=system)
    if sampling and not any(prompt.generation for prompt in asked):
        raise PromptkitError(f"samples is {samples}, but these prompts have nothing to write: their choices are scored")
    content_free = {_what_is_said(other): other for each in asked for other in (*each.content_free, *each.domain)}
    items = open_requests(model, [*asked, *content_free.values()], chat)
    check_window(model, items)
    from promptkit.scoring.requests import run_requests  # loads torch, which importing promptkit must not

    copies = [copy_request(item, samples) for item in items]
    usage, notes = run_requests(
        model,
        [item for several in copies for item in several],
        chat=chat,
        batch_tokens=batch_tokens,
        memory=None if memory is None else parse_size(memory),
        sampling=sampling,
        progress=progress,
    )
    if chat and asked:
        notes = (*notes, *model.encoder.chat.notes)
    return _make_table(copies, len(asked), usage, notes)


def _what_is_said(prompt: Prompt) -> tuple[Any, ...]:
    """Return what a prompt's scores depend on: equal for content-free prompts of different rows."""
    return prompt.text, prompt.messages, prompt.choices


def _make_table(copies: Sequence[Sequence[ScoringRequest]], count: int, usage: Usage, notes: tuple[str, ...]) -> Table:
    """Return the table of the first `count` prompts, each with a request per sample; the others are content-free."""
    asked = copies[:count]
    content_free = {_what_is_said(item.prompt): _likelihoods(item) for [item] in copies[count:]}
    items = [item for several in copies for item in several]
    return Table(
        predictions=tuple(_vote([_predict(item, content_free) for item in several]) for several in asked),
        tokens_prompted=sum(item.tokens_prompted for item in items),
        tokens_computed=usage.tokens,
        tokens_unique=usage.unique,
        tokens_generated=sum(item.written.tokens for item in items if item.written),
        flops=usage.flops,
        spanning=sum(any(joined.spans for item in several for joined in item.joined) for several in asked),
        unfinished=sum(not item.written.finished for item in items if item.written),
        notes=notes,
    )


def _likelihoods(item: ScoringRequest) -> Likelihoods:
    return Likelihoods(
        logprobs=item.logprobs,
        first=tuple(tokens[0] for tokens in item.token_logprobs),
        tokens=tuple(map(len, item.token_logprobs)),
        bytes=tuple(len(choice.encode()) for choice in item.choices) if item.token_logprobs else (),
    )


def _predict(item: ScoringRequest, content_free: Mapping[tuple[Any, ...], Likelihoods]) -> Prediction:
    prompt, written = item.prompt, item.written
    predicted: int | str | None
    seen = _likelihoods(item)
    if seen.logprobs:
        predicted = seen.logprobs.index(max(seen.logprobs))
    else:
        predicted = _read(prompt, written.text if written else "")
    return Prediction(
        id=prompt.id,
        logprobs=seen.logprobs,
        predicted=predicted,
        label=prompt.label,
        generated=written.text if written else None,
        spans=any(joined.spans for joined in item.joined),
        first=seen.first,
        tokens=seen.tokens,
        bytes=seen.bytes,
        content_free=tuple(content_free[_what_is_said(other)] for other in prompt.content_free),
        domain=tuple(content_free[_what_is_said(other)] for other in prompt.domain),
        choices=prompt.choices,
    )


def _vote(samples: Sequence[Prediction]) -> Prediction:
    """Return what the samples of a prompt vote for; the prediction itself where there is only one."""
    if len(samples) == 1:
        return samples[0]
    votes = count_votes([sample.predicted for sample in samples])
    return replace(
        samples[0],
        logprobs=(),
        predicted=votes[0][0] if votes else None,
        generated=None,
        spans=any(sample.spans for sample in samples),
        first=(),
        tokens=(),
        bytes=(),
        samples=tuple(Sample(sample.generated or "", sample.predicted, sample.logprobs) for sample in samples),
        votes=votes,
    )


def _read(prompt: Prompt, text: str) -> int | str | None:
    """Return the answer that a text gives: where there are choices, the index of the one it names."""
    pattern = prompt.generation.answer if prompt.generation else None
    answer = read_answer(text, pattern, template=prompt.template) if pattern else text.strip() or None
    if not prompt.choices:
        return answer
    return next((index for index, choice in enumerate(prompt.choices) if same_answer(answer, choice)), None)
