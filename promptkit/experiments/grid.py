"""Plan the cells of a study: every combination of its axes, nested where one varies within another."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from promptkit.adapters.card import TrainingOptions
from promptkit.analysis.cells import PlannedCell
from promptkit.analysis.forms import Form
from promptkit.building.build import default_selection
from promptkit.data.library import find_names
from promptkit.data.record import Record, hash_records
from promptkit.data.splits import Splits
from promptkit.data.tasks import Task
from promptkit.demonstrations import Draw, Selector, without_model
from promptkit.demonstrations.corruption import GOLD, VALID, parse_labels, parse_rationale
from promptkit.demonstrations.orders import order_demonstrations, sample_orders
from promptkit.errors import DataError, PromptkitError, SelectionError, nearest
from promptkit.experiments.order_axis import Search, Wanted, first_candidates, parse_search
from promptkit.experiments.plan import METHODS, check_sizes, passes_over, refuse_methods, validation_spec
from promptkit.experiments.training_options import TRAINING, Scene, check_effects
from promptkit.prompts.prompt import check_system
from promptkit.scoring.condition import Condition
from promptkit.scoring.scoring_rules import choose_readings, refuse_readings
from promptkit.storage.files import LARGEST_SOURCE, is_there, read_input
from promptkit.storage.parsing import is_whole, parse_toml, parse_whole
from promptkit.templating.formatting import parse_format
from promptkit.templating.surface import apply_format, sample_formats
from promptkit.templating.template import BoundTemplate, Template, load_template, match_templates
from promptkit.templating.verbalizers import give_words

if TYPE_CHECKING:
    from promptkit.models import Model

ALL = "all"
OWN = "own"
_MOST_ORDERS = 720


@dataclass(frozen=True)
class StudySettings(TrainingOptions):
    """What a study varies and what it holds fixed. Every combination of the axes is a cell.

    Axes: `methods`; `templates` (names or globs; per family where a mapping); `formats` (`own`, formats as
    `promptkit.templating.formatting` reads them, or a number of random ones); `labels` (`own`, or words for the
    task's labels in their order, separated by commas); `selections`; `shots`; `demo_labels` and `rationales` (what
    demonstrations show, as `promptkit.demonstrations.corruption` reads it); `draws` (how many choices of
    demonstrations); `orders` (how many of the k! sequences of each choice, or `all`, or names of orders, or
    `globale` and `locale:4`: those that a search keeps);
    `train_sizes` (records that LoRA is trained on; all of the pool where empty); `seeds` (LoRA runs); `models`.
    `tests` are further tasks, `TASK` or `TASK=DATA`, on whose test records every cell is asked too, out of domain.
    `budget` (calls, or minutes as `10m`) and `strategy` spend a part of the grid only, see `budgeted_evaluator`.
    `reference` and `about` say where a preset's settings are from, `forms` how its paper shows the result.
    """

    methods: tuple[str, ...] = ("few-shot",)
    templates: tuple[str, ...] | Mapping[str, Sequence[str]] = ()
    formats: tuple[str, ...] = (OWN,)
    labels: tuple[str, ...] = (OWN,)
    selections: tuple[str, ...] = ()
    shots: tuple[int, ...] = (4,)
    demo_labels: tuple[str, ...] = (GOLD,)
    rationales: tuple[str, ...] = (VALID,)
    draws: int = 5
    orders: tuple[str, ...] = ("4",)
    train_sizes: tuple[int, ...] = ()
    seeds: int = 3
    models: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    calibrate: tuple[str, ...] = ()
    seed: int = 0
    split: str = "test"
    limit: int | None = 200
    train_limit: int | None = 512
    chat: bool = False
    system: str = "system"
    dtype: str = "float32"
    overlong: str = "error"
    batch_tokens: int | None = None
    memory: int | None = None
    budget: int | str | None = None
    strategy: str = "halving"
    reference: str = ""
    about: str = ""
    forms: tuple[Form, ...] = ()

    def __post_init__(self) -> None:
        for each in fields(self):
            values = getattr(self, each.name)
            if each.name != "forms" and isinstance(values, tuple):  # a value given twice is one
                object.__setattr__(self, each.name, tuple(dict.fromkeys(values)))
        for method in self.methods:
            if method not in METHODS:
                raise PromptkitError(
                    f"unknown method {method!r}; known: {', '.join(METHODS)}.{nearest(method, METHODS)}"
                )
        if self.seed < 0:
            raise PromptkitError(f"seed is {self.seed}; it must be 0 or more")
        self.check_training()
        for name in ("draws", "seeds", "limit", "train_limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise PromptkitError(f"{name} is {value}; it must be 1 or more")
        check_system(self.system, chat=self.chat)
        check_sizes(self.train_sizes)
        for name, values in (("formats", self.formats), ("orders", self.orders)):
            if any(is_whole(value) and parse_whole(value) < 1 for value in values):
                raise PromptkitError(f"{name} are {', '.join(values)}; a number of them must be 1 or more")
        if any(k < 1 for k in self.shots):
            raise SelectionError(f"shots are {list(self.shots)}; each must be 1 or more (zero-shot is a method)")
        for name in self.demo_labels:
            parse_labels(name)
        for name in self.rationales:
            parse_rationale(name)


def describe_scene(settings: StudySettings) -> Scene:
    """Return what decides which of a study's settings matter."""
    names = ("methods", "shots", "train_sizes", "models", "budget", "overlong")
    return Scene(**{name: getattr(settings, name) for name in (*names, "kind")})


def find_presets() -> dict[str, Path]:
    """Return name -> file of every preset, the working directory's first."""
    return find_names("presets", ".toml")


def load_settings(preset: str | Path | None, **given: Any) -> StudySettings:
    """Return the settings of a preset (a name or a TOML file), those that are `given` in their place.

    Raises PromptkitError for an unknown preset, a file that is no TOML, a key that is no setting, and a value that its
    setting does not take.
    """
    read = _read_preset(preset) if preset else {}
    return StudySettings(**{**read, **given})


def _read_preset(preset: str | Path) -> dict[str, Any]:
    known = find_presets()
    path = Path(preset) if str(preset).endswith(".toml") else known.get(str(preset))
    if path is None or not is_there(path):
        raise PromptkitError(
            f"unknown preset {str(preset)!r}; known: {', '.join(known)}, or a TOML file.{nearest(str(preset), known)}"
        )
    try:
        read = parse_toml(read_input(path, LARGEST_SOURCE))
    except ValueError as error:
        raise PromptkitError(f"{path}: is no TOML: {error}") from error
    except OSError as error:
        raise PromptkitError(f"{path}: {error.strerror}") from error
    types = get_type_hints(StudySettings)
    for key, value in read.items():
        if key not in types:
            raise PromptkitError(f"{path}: unknown setting {key!r}; known: {', '.join(types)}.{nearest(key, types)}")
        read[key] = _read_forms(path, value) if key == "forms" else _listed(value, str(types[key]))
        try:
            TypeAdapter(types[key], config=ConfigDict(strict=True)).validate_python(read[key])
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Input ")
            raise PromptkitError(f"{path}: {key} is {value!r}; it {reason}") from error
    try:
        axes = read.keys() - set(TRAINING)  # how adapters are trained may be for methods that the command line names
        check_effects(axes, describe_scene(StudySettings(**read)))
    except PromptkitError as error:
        raise PromptkitError(f"{path}: {error}") from error
    return read


def _read_forms(path: Path, tables: Any) -> tuple[Form, ...]:
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise PromptkitError(f"{path}: `forms` is {tables!r}; give tables, each under [[forms]]")
    try:
        return tuple(Form(**table) for table in tables)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PromptkitError(f"{path}: forms: {where}: {first['msg'].removeprefix('Value error, ')}") from error


def _listed(value: Any, wanted: str) -> Any:
    """Return a TOML value as a setting holds it: lists as tuples, one value where several may stand as a tuple."""
    if isinstance(value, list):
        return tuple(str(item) if "str" in wanted else item for item in value)
    if wanted.startswith("tuple") and not isinstance(value, dict):
        return (str(value) if "str" in wanted else value,)
    return value


def load_templates(task: Task, settings: StudySettings) -> list[Template]:
    """Return the templates that the settings name, or the family's `plain`; raises TemplateError for what is none."""
    wanted = settings.templates
    patterns = wanted.get(task.templates, ()) if isinstance(wanted, Mapping) else wanted
    full = [
        way if "/" in way or way.endswith(".jinja") else f"{task.templates}/{way}" for way in patterns or ("plain",)
    ]
    return [load_template(name) for name in match_templates(full, task.templates)]


def describe_settings(task: Task, settings: StudySettings) -> dict[str, Any]:
    """Return all settings as JSON: under `grid` what may grow in a run folder, since its cells stay cells then.

    That are the values of the axes, and how many there are of what is drawn; templates, models, tests and the budget
    are left to the caller, who knows them better.
    """
    names = {"orders": settings.orders, "formats": settings.formats}
    numbers = {f"drawn_{name}": max((_count(value) for value in values), default=0) for name, values in names.items()}
    grid = {
        "methods": settings.methods,
        "labels": settings.labels,
        "selections": settings.selections or (default_selection(task),),
        "shots": settings.shots,
        "demo_labels": settings.demo_labels,
        "rationales": settings.rationales,
        "train_sizes": settings.train_sizes or (ALL,),
        **{name: [value for value in values if not _count(value)] for name, values in names.items()},
        **numbers,
        "draws": settings.draws,
        "seeds": settings.seeds,
    }
    elsewhere = {*grid, "templates", "models", "tests", "budget", "forms"}
    rest = {each.name: getattr(settings, each.name) for each in fields(settings) if each.name not in elsewhere}
    return {**rest, "forms": [form.model_dump(mode="json") for form in settings.forms], "grid": grid}


def _count(value: str) -> int:
    """Return how many orders or formats a value asks for, the first of more; 0 for one that is named."""
    return _MOST_ORDERS if value == ALL else parse_whole(value) if is_whole(value) else 0


def bind_ways(task: Task, settings: StudySettings) -> Iterator[tuple[BoundTemplate, dict[str, str]]]:
    """Yield every template in every format with every set of label words, and its place on these axes."""
    for template in load_templates(task, settings):
        name = template.name
        for form in _choose_formats(settings, template):
            formatted = apply_format(template, parse_format(form)) if form != OWN else template
            bound = formatted.bind(task, system=settings.system)
            for words in settings.labels:
                yield _with_words(bound, words), {"template": name, "format": form, "labels": words}


def _choose_formats(settings: StudySettings, template: Template) -> list[str]:
    """Return the names of the formats asked for; a number is so many, the template's own first."""
    names: dict[str, None] = {}
    for asked in settings.formats:
        if asked.isdecimal():
            drawn = sample_formats(int(asked), template, seed=settings.seed)
            names.update(dict.fromkeys(form.name for form in drawn))
        else:
            names[asked] = None
    return list(names)


def _with_words(bound: BoundTemplate, words: str) -> BoundTemplate:
    return bound if words == OWN else give_words(bound, words)


def plan_grid(
    task: Task, settings: StudySettings, splits: Splits, model: Model, search: Search = first_candidates
) -> Iterator[PlannedCell]:
    """Yield every cell of the study for one model, those whose prompts are run together side by side.

    `search` finds orders where some are to be searched for. Raises SelectionError and TemplateError for what does not
    fit the task, before anything is computed.
    """
    refuse_methods(task, settings.methods, model)
    readings = choose_readings(settings.calibrate, refuse_readings(task))
    common = {
        "model": model.hash,
        "dtype": model.dtype,
        "overlong": settings.overlong,
        "batch_tokens": settings.batch_tokens,
        **({"memory": settings.memory} if settings.memory else {}),
        "test": hash_records(splits.test),
    }
    for bound, way in bind_ways(task, settings):
        is_cot = bound.template.is_cot
        for method in (method for method in settings.methods if METHODS[method] == is_cot):
            base = Condition(method, bound, chat=settings.chat, seed=settings.seed, readings=() if is_cot else readings)
            place = {"model": model.name, "method": method, **way}
            for point in _points(task, settings, splits, base, search):
                words = {} if way["labels"] == OWN else {"labels": way["labels"]}
                yield replace(point, spec={**common, **point.spec, **words}, factors={**place, **point.factors})


def _points(
    task: Task, settings: StudySettings, splits: Splits, base: Condition, search: Search
) -> Iterator[PlannedCell]:
    if base.method.startswith("zero-shot"):
        yield PlannedCell(base, spec=base.spec(), factors={"k": "0"})
    elif base.method == "lora":
        yield from _lora_points(settings, splits, base)
    else:
        yield from _few_shot_points(task, settings, splits, base, search)


def _lora_points(settings: StudySettings, splits: Splits, base: Condition) -> Iterator[PlannedCell]:
    sizes = sorted(settings.train_sizes) or [len(splits.pool)]
    if sizes[-1] > len(splits.pool):
        raise DataError(f"a training size is {sizes[-1]}, but only {len(splits.pool)} training records are there")
    for size in sizes:
        rows = splits.pool[:size]
        validation = () if settings.train_sizes else splits.validation
        epochs = passes_over(size, settings.epochs) if settings.train_sizes else settings.epochs
        for seed in range(settings.seed, settings.seed + settings.seeds):
            spec = {
                **base.spec(),
                "seed": seed,
                "rows": hash_records(rows),
                "validation": hash_records(validation) if validation else None,
                **validation_spec(base.bound.task, validation),
                "epochs": epochs,
                **settings.spec(),
            }
            place = {"k": "0", "train-size": str(size), "seed": str(seed)}
            yield PlannedCell(base, rows, validation, size == sizes[-1], seed, epochs, spec, factors=place)


def _few_shot_points(
    task: Task, settings: StudySettings, splits: Splits, base: Condition, search: Search
) -> Iterator[PlannedCell]:
    pool = {"pool": hash_records(splits.pool)}
    rationales = settings.rationales if base.bound.template.is_cot else (VALID,)
    shown = [replace(base, demo_labels=own, rationale=why) for own in settings.demo_labels for why in rationales]
    for selection in settings.selections or (default_selection(task),):
        ranked = Selector(splits.pool, without_model(selection), settings.seed)
        for k, condition in itertools.product(settings.shots, shown):
            chosen = ranked.select(splits.test[0], k)
            for seed in range(settings.seed, settings.seed + settings.draws):
                drawn = replace(condition, k=k, draw=Draw(selection, "given", seed, seed))
                place = {
                    "selection": selection,
                    "k": str(k),
                    "demo-labels": condition.demo_labels,
                    **({"rationale": condition.rationale} if base.bound.template.is_cot else {}),
                    "draw": str(seed),
                }
                for point in _ordered_points(settings, drawn, chosen, search):
                    yield replace(point, spec={**point.spec, **pool}, factors={**place, **point.factors})


def _ordered_points(
    settings: StudySettings, drawn: Condition, chosen: tuple[Record, ...], search: Search
) -> Iterator[PlannedCell]:
    """Yield a draw in every order asked for, then in those that searches pick beside them."""
    assert drawn.draw
    wanted = [each for each in map(parse_search, settings.orders) if each]
    asked = choose_orders([name for name in settings.orders if not parse_search(name)], chosen, drawn.draw.seed)
    found: Mapping[Wanted, tuple[int, ...]] = search(drawn, wanted) if wanted else {}
    for order in dict.fromkeys([*asked, *(order for orders in found.values() for order in orders)]):
        condition = replace(drawn, draw=replace(drawn.draw, order=order))
        picked = tuple(str(each) for each, orders in found.items() if order in orders)
        yield PlannedCell(
            condition, spec=condition.spec(), factors={"order": str(order)}, picked=picked, asked=order in asked
        )


def choose_orders(asked: Sequence[str], chosen: tuple[Record, ...], seed: int) -> list[str | int]:
    """Return the sequences to show a choice of k demonstrations in: permutation numbers, or names of orders.

    `all` are the k! permutations; a number is so many of them, drawn by the seed. Raises SelectionError for what is
    none of these, and for more than 720 permutations.
    """
    count = math.factorial(len(chosen))
    orders: list[str | int] = []
    for name in asked:
        if name != ALL and not name.isdecimal():
            order_demonstrations(chosen, name)  # raises for an unknown name
            orders.append(name)
            continue
        wanted = count if name == ALL else min(int(name), count)
        if wanted > _MOST_ORDERS:
            raise SelectionError(f"{len(chosen)} demonstrations have {count} orders; ask for {_MOST_ORDERS} at most")
        orders += range(wanted) if wanted == count else sample_orders(len(chosen), wanted, seed)
    return list(dict.fromkeys(orders))
