"""One condition into one finished cell: prompts built, fitted to the window, scored, measured."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from promptkit.build import Demonstrations, render_prompts
from promptkit.content_free import ContentFree
from promptkit.errors import WindowError
from promptkit.metrics import correctness, measure
from promptkit.prompt import SYSTEM, TURN, Prompt
from promptkit.readings import split_readings, store_table
from promptkit.record import Record
from promptkit.score.sampling import Sampling
from promptkit.score.votes import summarize_votes
from promptkit.select import Draw, asks_for_probabilities, asks_for_vectors
from promptkit.stats import macro_f1_interval, wilson_interval
from promptkit.task import Task
from promptkit.template import BoundTemplate
from promptkit.variants.corrupt import GOLD, VALID, Rationales, parse_labels, relabel

if TYPE_CHECKING:
    from promptkit.models import Model
    from promptkit.score import Prediction, Table

Progress = Callable[[int, int], None]
Scorer = Callable[..., "Table"]
#: What to do with prompts longer than the window: refuse, or drop whole demonstrations and count them.
OVERLONG = ("error", "drop")
#: The encoder of a machine without sentence-transformers.
HIDDEN = "hidden states"
#: The share of the probability that the choices of a prompt have together, below which that is said.
LOW_MASS = 0.1
LOW_MASS_MEANS = (
    f"the choices together have less than {100 * LOW_MASS:.0f} % of the probability, so the model would rather write "
    "something else (see docs/scoring.md)"
)


@dataclass(frozen=True)
class Condition:
    """One way of asking: a method, a template that fits the task, and a draw of k demonstrations.

    `readings` are the scores and calibrations to be told from its cell, for which `seed` draws words. `sampling`
    says how several texts per prompt are drawn; None for one, the most likely. `demo_labels` and `rationale` name
    what demonstrations show in place of their own labels and rationales (see `promptkit.variants.corrupt`).
    """

    method: str
    bound: BoundTemplate
    k: int = 0
    draw: Draw | None = None
    chat: bool = False
    readings: tuple[str, ...] = ()
    seed: int = 0
    sampling: Sampling | None = None
    demo_labels: str = GOLD
    rationale: str = VALID

    def spec(self) -> dict[str, Any]:
        """Return what tells this condition from every other, as JSON for a cell's key."""
        asked: dict[str, Any] = {"readings": list(self.readings)} if self.readings else {}
        if "domain" in self.readings:
            asked["domain_seed"] = self.seed
        if self.sampling:
            asked["sampling"] = asdict(self.sampling)
        if self.demo_labels != GOLD:
            asked["demo_labels"] = self.demo_labels
        if self.rationale != VALID:
            asked["rationale"] = self.rationale
        if self.draw and asks_for_vectors(self.draw.selection):
            asked["encoder"] = find_encoder()
        if self.chat:
            asked["join"] = TURN  # cells from before it was one joined answers as plain prompts do
            if self.bound.system != SYSTEM[0]:
                asked["system"] = self.bound.system
        return {
            **asked,
            "method": self.method,
            "template": self.bound.template.name,
            "template_hash": self.bound.template.hash,
            "task": self.bound.task.name,
            "task_hash": self.bound.task.hash,
            "task_content": self.bound.task.content_hash,
            "k": self.k,
            "draw": asdict(self.draw) if self.draw else None,
            "chat": self.chat,
        }

    def prompts(
        self, queries: Sequence[Record], pool: Sequence[Record], keep: int | None = None, model: Model | None = None
    ) -> list[Prompt]:
        """Return one prompt per query, with k demonstrations out of `pool` or, of those, the first `keep`.

        Selections that ask a model ask `model`.
        """
        if self.draw is None:
            return list(render_prompts(self.bound, queries, chat=self.chat))
        helpers = ask_model(self.draw.selection, model, self.bound, chat=self.chat) if model else {}
        chosen = Demonstrations(pool, self.draw, **helpers)
        reasons = Rationales(self.rationale, pool, seed=self.draw.seed)

        def show(query: Record, k: int) -> tuple[Record, ...]:
            return reasons(self.relabel(chosen(query, k, keep)), query)

        return list(render_prompts(self.bound, queries, show, self.k, chat=self.chat))

    def relabel(self, demonstrations: Sequence[Record]) -> tuple[Record, ...]:
        """Return the demonstrations with the labels that this condition shows."""
        labels = parse_labels(self.demo_labels)
        return relabel(demonstrations, labels, self.bound, seed=self.draw.seed if self.draw else 0)


def ask_model(selection: str, model: Model, bound: BoundTemplate, *, chat: bool = False) -> dict[str, Any]:
    """Return what a selection that asks a model is given: vectors of texts, or probabilities of choices.

    Vectors are those of a sentence encoder where sentence-transformers is installed, else the model's own hidden
    states. Nothing for the other selections.
    """
    if asks_for_vectors(selection) and find_encoder() == HIDDEN:
        from promptkit.embed import hidden_states

        return {"embed": hidden_states(model)}
    if asks_for_probabilities(selection):
        from promptkit.score import score
        from promptkit.search import ChoiceProbabilities

        return {"probabilities": ChoiceProbabilities(bound, partial(score, model, chat=chat), chat=chat)}
    return {}


def find_encoder() -> str:
    """Return what turns texts into vectors here: the name of a sentence encoder, or `HIDDEN`."""
    from promptkit.select.sentence_encoder import ENCODER

    return ENCODER if find_spec("sentence_transformers") else HIDDEN


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
    from promptkit.score import prompt_lengths

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
        known = {"n": len(rows), "accuracy": None, "ci95": None, "macro_f1": None, "unread": unread}
        return {**known, "choice_mass": measure_mass(rows), **summarize_votes(rows)}
    figures = measure(predicted, labels, label_count)
    return {
        "n": figures.n,
        "accuracy": figures.accuracy,
        "ci95": wilson_interval(figures.correct, figures.n).as_list(),
        "macro_f1": figures.macro_f1,
        "macro_f1_ci95": macro_f1_interval([predicted], labels, label_count).as_list() if label_count else None,
        "unread": figures.unread,
        "distribution": [list(pair) for pair in figures.distribution] if label_count else None,
        "choice_mass": measure_mass(rows),
        **summarize_votes(rows),
    }


def measure_mass(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the probability that a model gives the choices of a prompt together, as a mean over predictions.

    It is the sum of their probabilities as whole texts, before any calibration, and 1 at most: a choice may begin
    another one. To six places, as log-likelihoods are kept. None where no choice was scored. Of several samples each
    counts.
    """
    scored = [scores for row in rows for scores in (row["logprobs"], *(s["logprobs"] for s in row.get("samples", ())))]
    masses = [min(1.0, math.fsum(map(math.exp, scores))) for scores in scored if scores]
    return round(math.fsum(masses) / len(masses), 6) if masses else None


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
