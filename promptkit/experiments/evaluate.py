"""Evaluate one condition: build its prompts, fit them to the context window, score and measure them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from promptkit.data.record import Record
from promptkit.errors import WindowError
from promptkit.prompts.content_free import ContentFree
from promptkit.prompts.prompt import Prompt
from promptkit.scoring.condition import Condition
from promptkit.scoring.scoring_rules import split_readings, store_table

if TYPE_CHECKING:
    from promptkit.models import Model
    from promptkit.scoring import Prediction, Table

Progress = Callable[[int, int], None]
Scorer = Callable[..., "Table"]
#: What to do with prompts longer than the window: refuse, or drop whole demonstrations and count them.
OVERLONG = ("error", "drop")


def fit_prompts(
    model: Model,
    condition: Condition,
    queries: Sequence[Record],
    pool: Sequence[Record],
    overlong: str = "error",
) -> tuple[list[Prompt], int]:
    """Return the condition's prompts and how many demonstrations were dropped from them in all.

    A prompt with its longest choice and what may be generated must fit the model's window. With
    `overlong` "error" a longer one raises WindowError; with "drop" it is built with the largest number
    of demonstrations that fits, for all its choices alike. Text is never cut. What readings need of
    content-free prompts comes with the prompts, and must fit too.
    """
    content_free = ContentFree(
        condition.bound,
        queries,
        condition.relabel(pool) if condition.readings else pool,
        readings=condition.readings,
        seed=condition.seed,
        chat=condition.chat,
    )

    def build(those: Sequence[int], k: int) -> list[tuple[int, Prompt, int]]:
        some = [queries[index] for index in those]
        prompts = content_free.attach(condition.prompts(some, pool, keep=k, model=model), some)
        return list(zip(those, prompts, _lengths(model, prompts, condition.chat), strict=True))

    built = build(range(len(queries)), condition.k)
    prompts = [prompt for _, prompt, _ in built]
    long = {index: length for index, _, length in built if length > model.window}
    if long and overlong == "error":
        raise WindowError(_too_long(model, condition, prompts, long, condition.k))
    kept = dict.fromkeys(long, 0)
    # draws are nested, so the largest k that fits is found by halving, and looked for in range(low, high)
    halves = [(0, condition.k, list(long))]
    while halves:
        low, high, those = halves.pop()
        if low == high or not those:
            continue
        middle = (low + high) // 2
        fitting = set()
        for index, prompt, length in build(those, middle):
            if length <= model.window:
                fitting.add(index)
            if length <= model.window or not middle:
                prompts[index], kept[index], long[index] = prompt, middle, length
        halves.append((middle + 1, high, [index for index in those if index in fitting]))
        halves.append((low, middle, [index for index in those if index not in fitting]))
    if never := {index: length for index, length in long.items() if length > model.window}:
        raise WindowError(_too_long(model, condition, prompts, never, 0))
    return prompts, sum(condition.k - k for k in kept.values())


def _lengths(model: Model, prompts: Sequence[Prompt], chat: bool) -> list[int]:
    """Return per prompt the most tokens that it takes, or one of its content-free prompts."""
    from promptkit.scoring import prompt_lengths

    others = list(dict.fromkeys(other for prompt in prompts for other in (*prompt.content_free, *prompt.domain)))
    lengths = prompt_lengths(model, [*prompts, *others], chat=chat)
    of = dict(zip(others, lengths[len(prompts) :], strict=True))
    return [
        max([own, *(of[other] for other in (*prompt.content_free, *prompt.domain))])
        for own, prompt in zip(lengths, prompts, strict=False)
    ]


def _too_long(model: Model, condition: Condition, prompts: Sequence[Prompt], long: Mapping[int, int], k: int) -> str:
    """Return what to say of prompts with k demonstrations; `long` holds the tokens of those that do not fit."""
    worst = max(long, key=lambda index: long[index])
    what = f"with k={k} demonstrations" if k else "without demonstrations"
    fix = "lower -k or give --overlong drop" if k else "shorten these records or take a model with a longer window"
    return (
        f"template {condition.bound.template.name}: {len(long)} of {len(prompts)} prompts {what} do not fit the "
        f"window of {model.window} tokens of {model.name!r} (longest: {long[worst]} tokens, record "
        f"{prompts[worst].id!r}); {fix}"
    )


def evaluate(
    model: Model, condition: Condition, queries: Sequence[Record], pool: Sequence[Record], **options: Any
) -> dict[str, Any]:
    """Return the finished cell of one condition as JSON; `options` and errors are those of `evaluate_together`."""
    return evaluate_together(model, [condition], queries, pool, **options)[0]


def evaluate_together(
    model: Model,
    conditions: Sequence[Condition],
    queries: Sequence[Record],
    pool: Sequence[Record],
    *,
    scorer: Scorer,
    overlong: str = "error",
    batch_tokens: int | None = None,
    memory: int | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Return a finished cell as JSON per condition: a prediction per query and what was computed for them.

    `conditions` agree in how texts are sampled and in whether they are chat. What their prompts share is computed
    once, and each cell bears an equal part of it. Nothing in a cell depends on the machine or the moment.

    Raises WindowError and what `scorer` raises.
    """
    first = conditions[0]
    options: dict[str, Any] = asdict(first.sampling) if first.sampling else {}
    if batch_tokens is not None:
        options["batch_tokens"] = batch_tokens
    if memory is not None:
        options["memory"] = memory
    fitted = [fit_prompts(model, condition, queries, pool, overlong) for condition in conditions]
    prompts = [prompt for prompts, _ in fitted for prompt in prompts]
    table = scorer(model, prompts, chat=first.chat, progress=progress, **options)
    return [
        _cell(model, condition, queries, prompts, part, dropped)
        for condition, (prompts, dropped), part in zip(conditions, fitted, table.split(len(fitted)), strict=True)
    ]


def _cell(
    model: Model,
    condition: Condition,
    queries: Sequence[Record],
    prompts: Sequence[Prompt],
    table: Table,
    dropped: int,
) -> dict[str, Any]:
    readings, left_out = split_readings(condition.readings, prompts)
    return {
        **({"calibration": store_table(table, readings)} if readings else {}),
        "predictions": [prediction_row(prediction) for prediction in table.predictions],
        "tokens_prompted": table.tokens_prompted,
        "tokens_computed": table.tokens_computed,
        "tokens_unique": table.tokens_unique,
        "tokens_generated": table.tokens_generated,
        "flops": table.flops,
        "spanning": table.spanning,
        "unfinished": table.unfinished,
        "dropped": dropped,
        "notes": [*table.notes, *left_out],
        "prompt_tokens": _mean_tokens(model, condition, prompts),
        "query_tokens": _mean_length(model, [condition.bound.input(query) for query in queries]),
    }


def prediction_row(prediction: Prediction) -> dict[str, Any]:
    """Return a prediction as JSON: log-likelihoods in nats to six places, as `--scores` prints them."""
    row: dict[str, Any] = {
        "id": prediction.id,
        "label": prediction.label,
        "predicted": prediction.predicted,
        "logprobs": _rounded(prediction.logprobs),
    }
    if prediction.samples:
        row["votes"] = [list(pair) for pair in prediction.votes]
        row["samples"] = [
            {"generated": sample.generated, "predicted": sample.predicted, "logprobs": _rounded(sample.logprobs)}
            for sample in prediction.samples
        ]
    return row if prediction.generated is None else {**row, "generated": prediction.generated}


def _rounded(logprobs: Sequence[float]) -> list[float]:
    return [round(value, 6) for value in logprobs]


def _mean_tokens(model: Model, condition: Condition, prompts: Sequence[Prompt]) -> float:
    """Return the mean number of tokens before the join."""
    encoder = model.encoder
    texts = [encoder.chat_prefix(p.messages) if condition.chat else p.text for p in prompts]
    return _mean_length(model, texts)


def _mean_length(model: Model, texts: Sequence[str]) -> float:
    return sum(map(len, model.encoder.encode_all(texts, chat=True))) / len(texts)
