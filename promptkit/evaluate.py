"""One condition into one finished cell: prompts built, fitted to the window, scored, measured."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from promptkit.build import Demonstrations, no_demonstrations, render_prompts
from promptkit.errors import WindowError
from promptkit.metrics import correctness, measure
from promptkit.prompt import Prompt
from promptkit.record import Record
from promptkit.select import Draw
from promptkit.stats import macro_f1_interval, wilson_interval
from promptkit.task import Task
from promptkit.template import BoundTemplate

if TYPE_CHECKING:
    from promptkit.models import Model
    from promptkit.score import Prediction, Table

Progress = Callable[[int, int], None]
Scorer = Callable[..., "Table"]
#: What to do with prompts longer than the window: refuse, or drop whole demonstrations and count them.
OVERLONG = ("error", "drop")


@dataclass(frozen=True)
class Condition:
    """One way of asking: a method, a template that fits the task, and a draw of k demonstrations."""

    method: str
    bound: BoundTemplate
    k: int = 0
    draw: Draw | None = None
    chat: bool = False

    def spec(self) -> dict[str, Any]:
        """Return what tells this condition from every other, as JSON for a cell's key."""
        return {
            "method": self.method,
            "template": self.bound.template.name,
            "template_hash": self.bound.template.hash,
            "task": self.bound.task.name,
            "task_hash": self.bound.task.hash,
            "k": self.k,
            "draw": asdict(self.draw) if self.draw else None,
            "chat": self.chat,
        }

    def prompts(self, queries: Sequence[Record], pool: Sequence[Record], keep: int | None = None) -> list[Prompt]:
        """Return one prompt per query, with k demonstrations out of `pool` or, of those, the first `keep`."""
        show = partial(Demonstrations(pool, self.draw), keep=keep) if self.draw else no_demonstrations
        return list(render_prompts(self.bound, queries, show, self.k, chat=self.chat))


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
    of demonstrations that fits, for all its choices alike. Text is never cut.
    """
    from promptkit.score import prompt_lengths

    prompts = condition.prompts(queries, pool)
    dropped = 0
    for k in range(condition.k, -1, -1):
        lengths = prompt_lengths(model, prompts, chat=condition.chat)
        long = [index for index, length in enumerate(lengths) if length > model.window]
        if not long:
            break
        if overlong == "error" or k == 0:
            raise WindowError(_too_long(model, condition, prompts, lengths, long, k))
        shorter = condition.prompts([queries[index] for index in long], pool, keep=k - 1)
        for index, prompt in zip(long, shorter, strict=True):
            prompts[index] = prompt
        dropped += len(long)
    return prompts, dropped


def _too_long(
    model: Model, condition: Condition, prompts: list[Prompt], lengths: list[int], long: list[int], k: int
) -> str:
    worst = max(long, key=lambda index: lengths[index])
    what = f"with k={k} demonstrations" if k else "without demonstrations"
    fix = "lower -k or give --overlong drop" if k else "shorten these records or take a model with a longer window"
    return (
        f"template {condition.bound.template.name}: {len(long)} of {len(prompts)} prompts {what} do not fit the "
        f"window of {model.window} tokens of {model.name!r} (longest: {lengths[worst]} tokens, record "
        f"{prompts[worst].id!r}); {fix}"
    )


def evaluate(
    model: Model,
    condition: Condition,
    queries: Sequence[Record],
    pool: Sequence[Record],
    *,
    scorer: Scorer,
    overlong: str = "error",
    batch_tokens: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Return the finished cell as JSON: a prediction per query and what was computed for them.

    Nothing in it depends on the machine or the moment. Raises WindowError and what `scorer` raises.
    """
    prompts, dropped = fit_prompts(model, condition, queries, pool, overlong)
    budget = {} if batch_tokens is None else {"batch_tokens": batch_tokens}
    table = scorer(model, prompts, chat=condition.chat, progress=progress, **budget)
    return {
        "predictions": [prediction_row(prediction) for prediction in table.predictions],
        "tokens_prompted": table.tokens_prompted,
        "tokens_computed": table.tokens_computed,
        "tokens_generated": table.tokens_generated,
        "flops": table.flops,
        "spanning": table.spanning,
        "unfinished": table.unfinished,
        "dropped": dropped,
        "notes": list(table.notes),
        "prompt_tokens": _mean_tokens(model, condition, prompts),
        "query_tokens": _mean_length(model, [condition.bound.input(query) for query in queries]),
    }


def prediction_row(prediction: Prediction) -> dict[str, Any]:
    """Return a prediction as JSON: log-likelihoods in nats to six places, as `--scores` prints them."""
    row = {
        "id": prediction.id,
        "label": prediction.label,
        "predicted": prediction.predicted,
        "logprobs": [round(value, 6) for value in prediction.logprobs],
    }
    return row if prediction.generated is None else {**row, "generated": prediction.generated}


def _mean_tokens(model: Model, condition: Condition, prompts: Sequence[Prompt]) -> float:
    """Return the mean number of tokens before the join."""
    encoder = model.encoder
    texts = [encoder.chat_prefix(p.messages) if condition.chat else p.text for p in prompts]
    return _mean_length(model, texts)


def _mean_length(model: Model, texts: Sequence[str]) -> float:
    return sum(map(len, model.encoder.encode_all(texts, chat=True))) / len(texts)


def summarize_cell(task: Task, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a cell's figures, with their interval, and what was counted beside them."""
    counts = {key: result[key] for key in ("spanning", "unfinished", "dropped")}
    return {
        **summarize_predictions(result["predictions"], len(task.labels) if task.labels else None),
        **counts,
    }


def summarize_predictions(rows: Sequence[Mapping[str, Any]], label_count: int | None) -> dict[str, Any]:
    """Return figures with their interval; those that need labels are None where some are unknown.

    `label_count` is None where labels are free text or differ from row to row; macro-F1 is then None.
    """
    predicted, labels = [row["predicted"] for row in rows], [row["label"] for row in rows]
    if None in labels:
        unread = sum(answer is None for answer in predicted)
        return {"n": len(rows), "accuracy": None, "ci95": None, "macro_f1": None, "unread": unread}
    figures = measure(predicted, labels, label_count)
    return {
        "n": figures.n,
        "accuracy": figures.accuracy,
        "ci95": wilson_interval(figures.correct, figures.n).as_list(),
        "macro_f1": figures.macro_f1,
        "macro_f1_ci95": macro_f1_interval([predicted], labels, label_count).as_list() if label_count else None,
        "unread": figures.unread,
        "distribution": [list(pair) for pair in figures.distribution] if label_count else None,
    }


def right_answers(result: Mapping[str, Any]) -> tuple[int, ...]:
    """Return 1 or 0 per query: whether its answer was read and right."""
    rows = result["predictions"]
    return correctness([row["predicted"] for row in rows], [row["label"] for row in rows])


def hash_records(records: Sequence[Record]) -> str:
    """Return a hex digest of the records' ids, fields, labels and rationales, in their order."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(repr((record.id, dict(record.fields), record.label, record.rationale, record.choices)).encode())
    return digest.hexdigest()
