"""A task, its templates and settings into the steps of a comparison, in the order of its table."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from promptkit.build import default_selection
from promptkit.errors import ModelError, PromptkitError, SelectionError, TemplateError, nearest
from promptkit.evaluate import Condition, hash_records
from promptkit.order import order_demonstrations
from promptkit.record import Record
from promptkit.select import Draw, Selector
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


@dataclass(frozen=True)
class CompareSettings:
    """What a comparison runs. With the task, the data and the model it decides every figure.

    `methods` and `templates` left empty mean all that fit. `draws` are draws of choice and order per
    number of `shots`: two orders of every choice, unless `order` names one. `seeds` are LoRA runs.
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
    chat: bool = False
    rank: int = 8
    epochs: int = 5
    learning_rate: float | None = None
    dtype: str = "float32"
    overlong: str = "error"
    batch_tokens: int | None = None

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
        for name in ("limit", "train_limit"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise PromptkitError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if any(k < 1 for k in self.shots):
            raise SelectionError(f"shots are {list(self.shots)}; each must be 1 or more (zero-shot is a method)")


@dataclass(frozen=True)
class Step:
    """One cell to compute: a condition and, for LoRA, the rows to train on first; `whole`: all of the pool."""

    condition: Condition
    rows: tuple[Record, ...] = ()
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
    if "few-shot-cot" in settings.methods and not task.has_rationales:
        raise TemplateError(f"method 'few-shot-cot' shows rationales, and task {task.name!r} has no field `rationale`")
    if "lora" in settings.methods and model.has_adapter:
        raise ModelError(f"method 'lora' trains a base model, and {model.name!r} has an adapter already; give its base")
    if settings.methods:
        for method in settings.methods:
            if METHODS[method] not in kinds:
                kind = "with" if METHODS[method] else "without"
                raise TemplateError(f"method {method!r} needs a template {kind} a rationale; see --template")
        return [method for method in METHODS if method in settings.methods]
    fitting = [m for m, reasons in METHODS.items() if reasons in kinds and (task.has_rationales or not reasons)]
    return [m for m in fitting if m != "lora" or not model.has_adapter]


def plan_steps(
    task: Task,
    settings: CompareSettings,
    methods: Sequence[str],
    bounds: Sequence[BoundTemplate],
    splits: Splits,
    model: Model,
) -> Iterator[Step]:
    """Yield every cell of the comparison, in the order of the table."""
    selection = settings.selection or default_selection(task)
    common = {
        "model": model.hash,
        "dtype": model.dtype,
        "overlong": settings.overlong,
        "batch_tokens": settings.batch_tokens,
        "test": hash_records(splits.test),
    }
    pool = {"pool": hash_records(splits.pool)}
    for method in methods:
        for bound in (bound for bound in bounds if bound.template.is_cot == METHODS[method]):
            base = Condition(method, bound, chat=settings.chat)
            if method == "lora":
                for step in _training_steps(settings, selection, base, splits):
                    yield replace(step, spec={**common, **step.spec})
            elif method.startswith("zero-shot"):
                yield Step(base, spec={**base.spec(), **common}, weight=_weight(base))
            else:
                for condition in _few_shot(settings, selection, base, splits):
                    yield Step(condition, spec={**condition.spec(), **common, **pool}, weight=_weight(condition))


def _few_shot(settings: CompareSettings, selection: str, base: Condition, splits: Splits) -> Iterator[Condition]:
    ranked = Selector(splits.pool, selection, settings.seed)
    for k in settings.shots:
        chosen = ranked.select(splits.test[0], k)  # what cannot be drawn is refused before anything is computed
        order_demonstrations(chosen, settings.order or "given")
        draws = make_draws(settings, selection, k)
        for draw in draws[: COT_DRAWS if base.bound.template.is_cot else None]:
            yield replace(base, k=k, draw=draw)


def _weight(condition: Condition) -> int:
    """Return about how long a cell takes, one zero-shot pass being 100: for the time left, nothing else."""
    return 1000 if condition.bound.template.is_cot else 100 + 6 * condition.k


def _training_steps(settings: CompareSettings, selection: str, base: Condition, splits: Splits) -> Iterator[Step]:
    """Yield LoRA on the k demonstrations (equal data), then on the whole pool, over the seeds."""
    nobody = Record(id="", fields={}, label=None)
    for k in (*settings.shots, None):
        for seed in range(settings.seed, settings.seed + settings.seeds):
            rows = Selector(splits.pool, selection, seed).select(nobody, k) if k else splits.pool
            epochs = FEW_ROW_EPOCHS if k else settings.epochs
            spec = {
                **base.spec(),
                "seed": seed,
                "rows": hash_records(rows),
                "validation": None if k else hash_records(splits.validation),
                "rank": settings.rank,
                "epochs": epochs,
                "learning_rate": settings.learning_rate,
            }
            yield Step(base, tuple(rows), k is None, seed, epochs, spec, 100 + 2 * len(rows) * epochs)
