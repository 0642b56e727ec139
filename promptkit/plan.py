"""A task, its templates and settings into the steps of a comparison, in the order of its table."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from promptkit.build import default_selection
from promptkit.errors import DataError, ModelError, PromptkitError, SelectionError, TemplateError, nearest
from promptkit.evaluate import Condition, hash_records
from promptkit.order import order_demonstrations
from promptkit.readings import NOT_FOR_COT, choose_readings, refuse_readings
from promptkit.record import Record
from promptkit.score.sampling import Sampling, choose_sampling
from promptkit.select import Draw, Selector, without_model
from promptkit.splits import Splits
from promptkit.task import Task
from promptkit.template import BoundTemplate, find_templates, load_template, match_templates

if TYPE_CHECKING:
    from promptkit.models import Model

#: Every way of using a model, in the order of the table; True where the model reasons first.
METHODS = {"zero-shot": False, "few-shot": False, "zero-shot-cot": True, "few-shot-cot": True, "lora": False}
#: Draws of a chain-of-thought condition at most: each of its items is decoded token by token.
COT_DRAWS = 4
#: Passes over the k demonstrations where only they are trained on: about the steps a small set needs.
FEW_ROW_EPOCHS = 30
#: Rows seen in all that a set should come to, up to that many passes: 60 steps of 16.
FEW_ROW_VISITS = 960


@dataclass(frozen=True)
class CompareSettings:
    """What a comparison runs. With the task, the data and the model it decides every figure.

    `methods` and `templates` left empty mean all that fit. `draws` are draws of choice and order per
    number of `shots`: two orders of every choice, unless `order` names one. `seeds` are LoRA runs.
    `train_sizes` replaces what LoRA is trained on, the shown demonstrations and the pool, by so many records of the
    pool each: smaller sets are the beginnings of larger ones. `calibrate` names further scores and calibrations,
    or `all`. With `samples` of 2 or more, so many texts are drawn wherever the model writes, at `temperature` and
    `top_p`, and their answers vote.
    """

    methods: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    shots: tuple[int, ...] = (4,)
    selection: str | None = None
    order: str | None = None
    draws: int = 10
    seeds: int = 3
    seed: int = 0
    split: str = "test"
    limit: int | None = 200
    train_limit: int | None = 512
    train_sizes: tuple[int, ...] = ()
    chat: bool = False
    rank: int = 8
    epochs: int = 5
    learning_rate: float | None = None
    dtype: str = "float32"
    overlong: str = "error"
    batch_tokens: int | None = None
    memory: int | None = None
    calibrate: tuple[str, ...] = ()
    samples: int = 1
    temperature: float | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        for method in self.methods:
            if method not in METHODS:
                known = ", ".join(METHODS)
                raise PromptkitError(f"unknown method {method!r}; known: {known}.{nearest(method, METHODS)}")
        if self.seed < 0:
            raise PromptkitError(f"seed is {self.seed}; it must be 0 or more")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise PromptkitError(f"learning rate is {self.learning_rate}; it must be above 0")
        for name in ("draws", "seeds", "epochs", "rank"):
            if getattr(self, name) < 1:
                raise PromptkitError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        for name in ("limit", "train_limit", "memory"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise PromptkitError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if any(size < 2 for size in self.train_sizes):
            raise PromptkitError(f"train sizes are {list(self.train_sizes)}; each must be 2 or more")
        if any(k < 1 for k in self.shots):
            raise SelectionError(f"shots are {list(self.shots)}; each must be 1 or more (zero-shot is a method)")
        _ = self.sampling  # which refuses what is out of range

    @property
    def sampling(self) -> Sampling | None:
        """How the texts of a prompt are drawn where something is written; None for one, the most likely."""
        return choose_sampling(self.samples, self.temperature, self.top_p, self.seed)


@dataclass(frozen=True)
class Step:
    """One cell to compute: a condition and, for LoRA, the rows to train on first and those to stop early by.

    `whole` marks the largest training set, which the other methods are compared with.
    """

    condition: Condition
    rows: tuple[Record, ...] = ()
    validation: tuple[Record, ...] = ()
    whole: bool = False
    seed: int = 0
    epochs: int = 0
    spec: Mapping[str, Any] = field(default_factory=dict)
    weight: int = 1

    @property
    def name(self) -> str:
        """What the progress line says."""
        condition = self.condition
        what = f"{len(self.rows)} rows, seed {self.seed}" if self.rows else f"k={condition.k}"
        return f"{condition.method} {what}" if self.rows or condition.k else condition.method


def bind_templates(task: Task, patterns: Sequence[str] = ()) -> list[BoundTemplate]:
    """Return the templates that match, or the family's `plain` and `cot`, checked against the task.

    Raises TemplateError for a pattern that matches nothing and a template that does not fit the task.
    """
    names = match_templates(patterns, task.templates) if patterns else []
    bounds = [load_template(name).bind(task) for name in names]
    known = find_templates()
    for default, is_cot in (("plain", False), ("cot", True)):
        name = f"{task.templates}/{default}"
        if name in known and not any(bound.template.is_cot == is_cot for bound in bounds):
            bounds.append(load_template(name).bind(task))
    if not bounds:
        raise TemplateError(
            f"task {task.name!r} wants the template family {task.templates!r}, which has no `plain` template; "
            "name one with --template"
        )
    return bounds


def make_draws(settings: CompareSettings, selection: str, k: int) -> list[Draw]:
    """Return the draws of k demonstrations: two orders of every choice, or the one order asked for.

    An order is the number of a permutation, drawn from (seed, choice); 0 is as selected.
    """
    draws = []
    for index in range(settings.draws):
        if settings.order is not None or k == 1:  # one demonstration has one order
            seed = settings.seed + index
            draws.append(Draw(selection, settings.order or "given", seed, seed))
            continue
        seed = settings.seed + index // 2
        count = math.factorial(k)
        order = random.Random(f"order {seed}").randrange(count)
        if index % 2:  # the second of the pair: any order but the first's
            order = (order + random.Random(f"other {seed}").randrange(1, count)) % count
        draws.append(Draw(selection, order, seed))
    return draws


def choose_methods(task: Task, settings: CompareSettings, bounds: Sequence[BoundTemplate], model: Model) -> list[str]:
    """Return the methods asked for, or all that fit: an adapter is not trained on top of another."""
    kinds = {bound.template.is_cot for bound in bounds}
    refuse_methods(task, settings.methods, model)
    if settings.methods:
        for method in settings.methods:
            if METHODS[method] not in kinds:
                kind = "with" if METHODS[method] else "without"
                raise TemplateError(f"method {method!r} needs a template {kind} a rationale; see --template")
        return [method for method in METHODS if method in settings.methods]
    fitting = [m for m, reasons in METHODS.items() if reasons in kinds and (task.has_rationales or not reasons)]
    return [m for m in fitting if m != "lora" or not model.has_adapter]


def refuse_methods(task: Task, methods: Sequence[str], model: Model) -> None:
    """Raise TemplateError or ModelError for a method that this task or this model rules out."""
    if "few-shot-cot" in methods and not task.has_rationales:
        raise TemplateError(f"method 'few-shot-cot' shows rationales, and task {task.name!r} has no field `rationale`")
    if "lora" in methods and model.has_adapter:
        raise ModelError(f"method 'lora' trains a base model, and {model.name!r} has an adapter already; give its base")


def plan_steps(
    task: Task,
    settings: CompareSettings,
    methods: Sequence[str],
    bounds: Sequence[BoundTemplate],
    splits: Splits,
    model: Model,
) -> Iterator[Step]:
    """Yield every cell of the comparison, in the order of the table.

    Raises PromptkitError where `calibrate` names what does not exist or does not apply.
    """
    readings = choose_readings(settings.calibrate, refuse_readings(task))
    if readings and all(METHODS[method] for method in methods):
        raise PromptkitError(f"--calibrate: no method here can be calibrated; {NOT_FOR_COT}")
    if settings.sampling and not (task.is_free_text or any(METHODS[method] for method in methods)):
        raise PromptkitError(
            f"samples is {settings.samples}, but nothing is written here: choices are scored; take a chain-of-thought "
            "method and template"
        )
    selection = settings.selection or default_selection(task)
    common = {
        "model": model.hash,
        "dtype": model.dtype,
        "overlong": settings.overlong,
        "batch_tokens": settings.batch_tokens,
        **({"memory": settings.memory} if settings.memory else {}),
        "test": hash_records(splits.test),
    }
    pool = {"pool": hash_records(splits.pool)}
    for method in methods:
        for bound in (bound for bound in bounds if bound.template.is_cot == METHODS[method]):
            base = Condition(method, bound, chat=settings.chat, seed=settings.seed)
            if not bound.template.is_cot:
                base = replace(base, readings=readings)
            if bound.template.is_cot or task.is_free_text:
                base = replace(base, sampling=settings.sampling)
            if method == "lora":
                for step in _training_steps(settings, selection, base, splits):
                    yield replace(step, spec={**common, **step.spec})
            elif method.startswith("zero-shot"):
                yield Step(base, spec={**base.spec(), **common}, weight=_weight(base))
            else:
                for condition in _few_shot(settings, selection, base, splits):
                    yield Step(condition, spec={**condition.spec(), **common, **pool}, weight=_weight(condition))


def _few_shot(settings: CompareSettings, selection: str, base: Condition, splits: Splits) -> Iterator[Condition]:
    ranked = Selector(splits.pool, without_model(selection), settings.seed)
    for k in settings.shots:
        chosen = ranked.select(splits.test[0], k)  # what cannot be drawn is refused before anything is computed
        order_demonstrations(chosen, settings.order or "given")
        draws = make_draws(settings, selection, k)
        for draw in draws[: COT_DRAWS if base.bound.template.is_cot else None]:
            yield replace(base, k=k, draw=draw)


def _weight(condition: Condition) -> int:
    """Return about how long a cell takes, one zero-shot pass being 100: for the time left, nothing else."""
    texts = condition.sampling.samples if condition.sampling else 1
    return 1000 * texts if condition.bound.template.is_cot else 100 + 6 * condition.k


def _training_steps(settings: CompareSettings, selection: str, base: Condition, splits: Splits) -> Iterator[Step]:
    """Yield every training set over the seeds."""
    seeds = range(settings.seed, settings.seed + settings.seeds)
    for sets in zip(*(_training_sets(settings, selection, splits, seed) for seed in seeds), strict=True):
        for seed, (rows, whole) in zip(seeds, sets, strict=True):
            by_size = bool(settings.train_sizes) or not whole
            validation = () if by_size else splits.validation
            epochs = passes_over(len(rows), settings.epochs) if by_size else settings.epochs
            spec = {
                **base.spec(),
                "seed": seed,
                "rows": hash_records(rows),
                "validation": None if by_size else hash_records(validation),
                "rank": settings.rank,
                "epochs": epochs,
                "learning_rate": settings.learning_rate,
            }
            weight = 100 + 2 * len(rows) * epochs
            yield Step(base, tuple(rows), tuple(validation), whole, seed, epochs, spec, weight)


def _training_sets(
    settings: CompareSettings, selection: str, splits: Splits, seed: int
) -> Iterator[tuple[Sequence[Record], bool]]:
    """Yield what LoRA is trained on with this seed, and whether it is the most: k rows each (equal data), the pool."""
    if sizes := sorted(settings.train_sizes):
        if sizes[-1] > len(splits.pool):
            raise DataError(f"a training size is {sizes[-1]}, but only {len(splits.pool)} training records are there")
        yield from ((splits.pool[:size], size == sizes[-1]) for size in sizes)
        return
    nobody = Record(id="", fields={}, label=None)
    for k in settings.shots:
        yield Selector(splits.pool, without_model(selection), seed).select(nobody, k), False
    yield splits.pool, True


def passes_over(rows: int, epochs: int) -> int:
    """Return how often to pass over a set: `epochs` times, or, where that is too little for few rows, more often."""
    return max(epochs, min(FEW_ROW_EPOCHS, -(-FEW_ROW_VISITS // rows)))
