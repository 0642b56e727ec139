"""Plan the cells of a comparison, in the order of its table."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from promptkit.adapters.card import TrainingOptions
from promptkit.analysis.cells import PlannedCell
from promptkit.building.build import default_selection
from promptkit.data.record import EMPTY_QUERY, Record, hash_records
from promptkit.data.splits import Splits
from promptkit.data.tasks import Task
from promptkit.demonstrations import Draw, Selector, goes_by_query, without_model
from promptkit.demonstrations.orders import order_demonstrations
from promptkit.errors import (
    DataError,
    ModelError,
    PromptkitError,
    SelectionError,
    TemplateError,
    WindowError,
    nearest,
)
from promptkit.experiments.evaluate import OVERLONG, fit_prompts
from promptkit.prompts.prompt import check_system
from promptkit.scoring.condition import Condition
from promptkit.scoring.sampling import Sampling, choose_sampling
from promptkit.scoring.scoring_rules import NOT_FOR_COT, choose_readings, refuse_readings
from promptkit.templating.template import BoundTemplate

if TYPE_CHECKING:
    from promptkit.models import Model

#: Every way of using a model, in the order of the table; True where the model reasons first.
METHODS = {"zero-shot": False, "few-shot": False, "zero-shot-cot": True, "few-shot-cot": True, "lora": False}
#: Draws of a chain-of-thought condition at most: each of its items is decoded token by token.
COT_DRAWS = 4
#: Passes over the k demonstrations where only they are trained on: about the steps a small set needs.
FEW_ROW_EPOCHS = 30
#: Rows seen in all that a set should come to, up to that many passes: 120 steps of 8.
FEW_ROW_VISITS = 960
#: What to do with a number of demonstrations that does not fit the window: see `CompareSettings`.
SKIP = "skip"
#: How demonstrations are retrieved against growing sets, unless another selection is named; `none` for not at all.
RETRIEVAL, NO_RETRIEVAL = "bm25", "none"


@dataclass(frozen=True)
class CompareSettings(TrainingOptions):
    """What a comparison runs. With the task, the data and the model it decides every figure.

    `methods` and `templates` left empty mean all that fit. `draws` are draws of choice and order per
    number of `shots`, of which 0 is zero-shot: two orders of every choice, unless `order` names one. `seeds` are LoRA
    runs. `train_sizes` asks for curves: it replaces what LoRA is trained on, the shown demonstrations and the pool, by
    so many records of the pool each (smaller sets are the beginnings of larger ones), and of as many records
    demonstrations are retrieved for each query, by the selection `retrieval` (bm25, or `selection` where that goes by
    the query; `none` for not at all). `overlong` says what becomes of prompts beyond the window: `error` refuses them,
    `drop` drops whole demonstrations, `skip` leaves their number of demonstrations out and says so; None is `skip`
    where there are `train_sizes`, else `error`. `calibrate` names further scores and calibrations, or `all`. With
    `samples` of 2 or more, so many texts are drawn wherever the model writes, at `temperature` and `top_p`, and their
    answers vote.
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
    retrieval: str | None = None
    chat: bool = False
    system: str = "system"
    dtype: str = "float32"
    overlong: str | None = None
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
        self.check_training()
        for name in ("draws", "seeds"):
            if getattr(self, name) < 1:
                raise PromptkitError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        for name in ("limit", "train_limit", "memory"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise PromptkitError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        check_sizes(self.train_sizes)
        if any(k < 0 for k in self.shots):
            raise SelectionError(f"shots are {list(self.shots)}; each must be 0 (zero-shot) or more")
        if self.overlong not in (None, *OVERLONG, SKIP):
            raise PromptkitError(f"overlong is {self.overlong!r}; known: {', '.join((*OVERLONG, SKIP))}")
        if self.retrieval and not self.train_sizes:
            raise SelectionError(
                f"retrieval is {self.retrieval!r}, but there are no train sizes to retrieve from; give --train-sizes, "
                "or name it as --selection"
            )
        if self.retrieval not in (None, NO_RETRIEVAL) and not goes_by_query(self.retrieval):
            raise SelectionError(
                f"retrieval {self.retrieval!r} chooses the same demonstrations for every query; name one that goes by "
                f"the query, such as {RETRIEVAL}, or {NO_RETRIEVAL}"
            )
        check_system(self.system, chat=self.chat)
        _ = self.sampling  # which refuses what is out of range

    @property
    def few(self) -> tuple[int, ...]:
        """The numbers of demonstrations above 0."""
        return tuple(k for k in self.shots if k)

    @property
    def skips(self) -> bool:
        """Whether what does not fit the window is left out."""
        return self.overlong == SKIP or (self.overlong is None and bool(self.train_sizes))

    @property
    def scored(self) -> CompareSettings:
        """The settings as its cells know them: what is left out has none, and what is there fits."""
        return replace(self, overlong="drop" if self.overlong == "drop" else "error")

    @property
    def sampling(self) -> Sampling | None:
        """How the texts of a prompt are drawn where something is written; None for one, the most likely."""
        return choose_sampling(self.samples, self.temperature, self.top_p, self.seed)


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
        asked = _by_shots(settings)
        for method in asked:
            if METHODS[method] not in kinds:
                kind = "with" if METHODS[method] else "without"
                raise TemplateError(f"method {method!r} needs a template {kind} a rationale; see --template")
        for bound in bounds:
            name, reasons = bound.template.name, bound.template.is_cot
            if {name, name.partition("/")[2]} & {*settings.templates} and reasons not in {METHODS[m] for m in asked}:
                kind = "a" if reasons else "no"
                raise TemplateError(f"template {name} has {kind} rationale, and none of the methods takes that")
        return [method for method in METHODS if method in asked]
    fitting = [m for m, reasons in METHODS.items() if reasons in kinds and (task.has_rationales or not reasons)]
    fitting = [m for m in fitting if settings.few or not m.startswith("few-shot")]
    return [m for m in fitting if m != "lora" or not model.has_adapter]


def _by_shots(settings: CompareSettings) -> set[str]:
    """Return the methods asked for; few-shot with 0 demonstrations is zero-shot."""
    asked = set(settings.methods)
    if 0 in settings.shots:
        asked |= {method.replace("few", "zero") for method in asked if method.startswith("few-shot")}
    return {method for method in asked if settings.few or not method.startswith("few-shot")}


def list_shots(methods: Iterable[str], shots: Iterable[int]) -> tuple[int, ...]:
    """Return the numbers of demonstrations that prompts of these methods have: 0 where one shows none."""
    few = [method.startswith("few-shot") for method in methods]
    return (*([] if all(few) else [0]), *(shots if any(few) else ()))


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
) -> Iterator[PlannedCell]:
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
                yield PlannedCell(base, spec={**base.spec(), **common}, weight=_weight(base))
            else:
                for step in (*_few_shot(settings, selection, base, splits), *_retrieved(settings, base, splits)):
                    spec = {**step.condition.spec(), **common, **pool, **step.spec}
                    yield replace(step, spec=spec, weight=_weight(step.condition))


def _few_shot(settings: CompareSettings, selection: str, base: Condition, splits: Splits) -> Iterator[PlannedCell]:
    if settings.train_sizes and goes_by_query(selection):
        return  # such demonstrations are retrieved, from growing sets
    ranked = Selector(splits.pool, without_model(selection), settings.seed)
    for k in settings.few:
        chosen = ranked.select(splits.test[0], k)  # what cannot be drawn is refused before anything is computed
        order_demonstrations(chosen, settings.order or "given")
        draws = make_draws(settings, selection, k)
        for draw in draws[: COT_DRAWS if base.bound.template.is_cot else None]:
            yield PlannedCell(replace(base, k=k, draw=draw))


def _retrieved(settings: CompareSettings, base: Condition, splits: Splits) -> Iterator[PlannedCell]:
    """Yield what retrieves k demonstrations for each query out of so many records, the nearest of them last."""
    own = settings.selection if settings.selection and goes_by_query(settings.selection) else RETRIEVAL
    retrieval = settings.retrieval or own
    if not settings.train_sizes or retrieval == NO_RETRIEVAL or base.bound.template.is_cot:
        return
    draw = Draw(retrieval, settings.order or "nearest-last", settings.seed, settings.seed)
    for k in settings.few:
        for size in _sizes(settings, splits):
            if k <= size:
                spec = {"pool": hash_records(splits.pool[:size]), "pool_rows": size}
                yield PlannedCell(replace(base, k=k, draw=draw), spec=spec, pool_rows=size)


def keep_fitting(
    plan: Sequence[PlannedCell], model: Model, splits: Splits, is_done: Callable[[PlannedCell], bool]
) -> tuple[list[PlannedCell], list[str]]:
    """Return the steps without the conditions of which a run does not fit the model's window, and why those are not.

    Steps without demonstrations stay. What `is_done` fitted when it was computed.
    """
    kept: list[PlannedCell] = []
    reasons = []
    for _, group in groupby(plan, key=_place):
        steps = list(group)
        try:
            for step in steps:
                if step.condition.k and not is_done(step):
                    fit_prompts(model, step.condition, splits.test, step.pool(splits))
        except WindowError as error:
            reasons.append(f"{step.name} is left out: {error}")
        else:
            kept += steps
    return kept, reasons


def _place(step: PlannedCell) -> Any:
    """Return what the runs of one row of the table have in common."""
    condition = step.condition
    return condition.method, condition.bound.template.name, condition.k, step.pool_rows, len(step.rows), step.whole


def _weight(condition: Condition) -> int:
    """Return about how long a cell takes, one zero-shot pass being 100: for the time left, nothing else."""
    texts = condition.sampling.samples if condition.sampling else 1
    return 1000 * texts if condition.bound.template.is_cot else 100 + 6 * condition.k


def _training_steps(
    settings: CompareSettings, selection: str, base: Condition, splits: Splits
) -> Iterator[PlannedCell]:
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
                **validation_spec(base.bound.task, validation),
                "epochs": epochs,
                **settings.spec(),
            }
            weight = 100 + 2 * len(rows) * epochs
            yield PlannedCell(base, tuple(rows), tuple(validation), whole, seed, epochs, spec, weight)


def _training_sets(
    settings: CompareSettings, selection: str, splits: Splits, seed: int
) -> Iterator[tuple[Sequence[Record], bool]]:
    """Yield what LoRA is trained on with this seed, and whether it is the most: k rows each (equal data), the pool."""
    if sizes := _sizes(settings, splits):
        yield from ((splits.pool[:size], size == sizes[-1]) for size in sizes)
        return
    for k in settings.few:
        yield Selector(splits.pool, without_model(selection), seed).select(EMPTY_QUERY, k), False
    yield splits.pool, True


def _sizes(settings: CompareSettings, splits: Splits) -> list[int]:
    """Return the sizes of the training sets, the smallest first, none twice."""
    sizes = sorted(set(settings.train_sizes))
    if sizes and sizes[-1] > len(splits.pool):
        raise DataError(f"a training size is {sizes[-1]}, but only {len(splits.pool)} training records are there")
    return sizes


def validation_spec(task: Task, validation: Sequence[Record]) -> dict[str, str]:
    """Return the metric that chooses an adapter's epoch as a part of its cell's key; nothing where it is accuracy."""
    return {"metric": task.merit} if validation and task.merit != "accuracy" else {}


def check_sizes(sizes: Sequence[int]) -> None:
    """Raise PromptkitError for a train size that no adapter can be trained on."""
    if any(size < 2 for size in sizes):
        raise PromptkitError(f"train sizes are {list(sizes)}; each must be 2 or more")


def passes_over(rows: int, epochs: int) -> int:
    """Return how often to pass over a set: `epochs` times, or, where that is too little for few rows, more often."""
    return max(epochs, min(FEW_ROW_EPOCHS, -(-FEW_ROW_VISITS // rows)))
