"""Generate the rows of a training set from a mixture: which record comes when, in which template."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptkit.building.build import Templates, default_selection, is_plain, name_templates
from promptkit.building.candidates import TRAIN, VALIDATION, Candidates, CandidateSource, gather_candidates
from promptkit.building.label_words import Rewording, check_wording
from promptkit.building.mixture import (
    OWN,
    Mixture,
    MixturePart,
    deal_parts,
    is_mixture,
    load_mixture,
    make_mixture,
    share_records,
)
from promptkit.building.row_draws import DrawKey
from promptkit.building.shots import RowDemonstrations
from promptkit.data.local import as_data
from promptkit.data.record import Record
from promptkit.data.splits import describe_unlearned, find_unlearned
from promptkit.data.tasks import Task, load_task
from promptkit.demonstrations import goes_by_query
from promptkit.demonstrations.orders import check_order
from promptkit.errors import DataError, SelectionError, TaskError, TemplateError
from promptkit.prompts.pair import build_pair, pair_row
from promptkit.templating.template import BoundTemplate, Template, is_glob, load_template, match_templates

if TYPE_CHECKING:
    from numpy.typing import NDArray

Row = dict[str, Any]


@dataclass(frozen=True)
class Component:
    """A part of a mixture, loaded: its task, and its templates by their names, each with its weight."""

    name: str
    part: MixturePart
    task: Task
    templates: Mapping[str, BoundTemplate]
    weights: Mapping[str, float]

    @property
    def source(self) -> tuple[str, str, object]:
        """What tells the data that the part's records are read from: parts of equal sources share their records."""
        data = as_data(self.part.data)
        return self.task.name, self.task.hash, data and data.key

    @cached_property
    def every_way(self) -> tuple[tuple[str, int], ...] | None:
        """Every template with every number of demonstrations; None where some are drawn for a record."""
        return tuple(itertools.product(self.templates, self.part.shots)) if self.part.drawn is None else None

    @cached_property
    def wordings(self) -> Mapping[str, float]:
        """Wording -> weight."""
        return {name: 1.0 if weight is None else weight for name, weight in self.part.labels.items()}

    @property
    def rows_per_record(self) -> int:
        """How many rows one appearance of a record makes."""
        return self.part.drawn or len(self.templates) * len(self.part.shots)


def load_component(
    name: str,
    part: MixturePart,
    task: Task | None = None,
    templates: Sequence[tuple[Template, float | None]] | None = None,
) -> Component:
    """Return the part with its task and templates loaded, or with those that are given.

    Raises TaskError and TemplateError for what cannot be loaded or does not fit the task, and DataError where
    more templates are to be drawn for a record than there are.
    """
    task = task or load_task(part.task)
    if part.selection is not None:
        goes_by_query(part.selection)  # raises where there is no such selection
    check_order(part.order)
    if templates is None:
        templates = _load_templates(name, part, task)
    bounds = [template.bind(task) for template, _ in templates]
    for bound, wording in itertools.product(bounds, part.labels):
        check_wording(wording, bound)
    if part.drawn and part.drawn > len(bounds):
        raise DataError(f"{name}: {part.drawn} templates per record were asked for, {len(bounds)} are there")
    weights = {template.name: 1.0 if weight is None else weight for template, weight in templates}
    return Component(name, part, task, {bound.template.name: bound for bound in bounds}, weights)


def _load_named(name: str, part: MixturePart, parts: int) -> Component:
    """Return the part loaded; of several, an error says of which it is."""
    try:
        return load_component(name, part)
    except (TaskError, TemplateError, SelectionError) as error:
        raise type(error)(f"[tasks.{name}]: {error}" if parts > 1 else str(error)) from error


def _load_templates(name: str, part: MixturePart, task: Task) -> list[tuple[Template, float | None]]:
    """Return the templates that the part names, with their weights; of a glob those that the task's data can teach."""
    patterns = part.templates or {"plain": None}
    found: dict[str, str] = {}
    named = [(pattern, each) for pattern in patterns for each in match_templates([pattern], task.templates)]
    for pattern, each in named:
        if each in found and is_glob(pattern) == is_glob(found[each]) and patterns[pattern] != patterns[found[each]]:
            raise TemplateError(f"{name}: {found[each]!r} and {pattern!r} give template {each!r} two weights; give one")
        if each not in found or not is_glob(pattern):  # a name says more than a glob does
            found[each] = pattern
    loaded = [(load_template(each), pattern) for each, pattern in found.items()]
    if not task.has_rationales:
        loaded = [(template, pattern) for template, pattern in loaded if not (template.is_cot and is_glob(pattern))]
    if not loaded:
        raise TemplateError(
            f"{name}: all templates that match {', '.join(map(repr, patterns))} reason before they answer, and task "
            f"{task.name!r} has no rationales; name one that does not, or map `rationale` to a column of the data"
        )
    return [(template, patterns[pattern]) for template, pattern in loaded]


def _settle(component: Component, mixture: Mixture) -> Component:
    """Return a part as the mixture that it is in wants it: its settings, and where chat turns hold the instruction."""
    templates = {name: replace(bound, system=mixture.system) for name, bound in component.templates.items()}
    return replace(component, part=mixture.tasks[component.name], templates=templates)


@dataclass(frozen=True)
class Item:
    """One appearance of a record in a training set, of which its rows are made."""

    component: Component
    record: Record
    draw_key: DrawKey


class TrainingSet:
    """The rows of a mixture, in their order: the same for any number of workers, and again on every pass.

    Of a split that is held out, `mixture` is what is left of the one given: every record of it once.
    What is left out is found when the set is made: all records are read once. `counts` says how many records of each
    part one epoch holds. The rows are rendered when they are asked for; of a mixture without a limit no record is kept.

    Raises DataError, TaskError, TemplateError and SelectionError for what does not fit together.
    """

    def __init__(self, mixture: Mixture, components: Sequence[Component] | None = None) -> None:
        self.mixture = mixture = mixture.held_out() if mixture.split == VALIDATION and mixture.hold_out else mixture
        if components is None:
            components = [_load_named(name, part, len(mixture.tasks)) for name, part in mixture.tasks.items()]
        self.components = tuple(_settle(each, mixture) for each in components)
        self.candidates = self._gather_candidates(mixture)
        self._dealt = {each.name: self._deal(each) for each in self.components}
        self.counts = self._count()
        self._demonstrations: dict[str, RowDemonstrations] = {}
        self._gathered: dict[str, list[Record]] = {}
        self._reword = Rewording()

    def __getstate__(self) -> dict[str, Any]:
        """Return what goes to another process: what can be made there when it is needed stays here."""
        return {**vars(self), "_demonstrations": {}, "_reword": Rewording()}

    @property
    def total(self) -> int:
        """How many rows the set has."""
        one = sum(self.counts[each.name] * each.rows_per_record for each in self.components)
        return one * self.mixture.epochs

    def rows(self, share: int = 0, shares: int = 1) -> Iterator[Row]:
        """Yield the rows; of several shares, those of every `shares`-th appearance of a record from `share` on.

        Every row has the columns of `build_pairs`; `epoch`, `repeat` and `wording` where these can differ.
        """
        for item in itertools.islice(self.items(), share, None, shares):
            yield from self.render(item)

    def note_unlearned(self) -> list[str]:
        """Return a warning per part of the labels that none of its records has; nothing for what is tested on."""
        if self.mixture.split not in (None, TRAIN):
            return []
        notes = []
        for each in self.components:
            dealt = self._dealt[each.name][: self.counts[each.name]]
            missing = find_unlearned(
                each.task.labels or (), set(self.candidates[each.name].survey.answers[dealt].tolist())
            )
            notes += [describe_unlearned(f"{each.name}, {len(dealt)} records", missing)] if missing else []
        return notes

    def items(self) -> Iterator[Item]:
        """Yield every appearance of a record: epoch by epoch, the parts in turn by their shares."""
        seed, names = self.mixture.seed, [each.name for each in self.components]
        for epoch in range(self.mixture.epochs):
            visits = [self._visit(each) for each in self.components]
            for place in self._turns():
                record, repeat = next(visits[place])
                draw_key = DrawKey(seed, names[place], record.id, epoch, repeat)
                yield Item(self.components[place], record, draw_key)

    def render(self, item: Item) -> Iterator[Row]:
        """Yield the rows of one appearance of a record: one per template and number of demonstrations."""
        component, draw_key = item.component, item.draw_key
        for name, k in component.every_way or self._draw_ways(item):
            wording = draw_key.choose(f"labels {name} {k}", component.wordings)[0]
            bound = self._reword(component.templates[name], wording, draw_key, shots=k)
            shown = self._show(item, k) if k else ()
            row = pair_row(build_pair(bound, item.record, shown, chat=self.mixture.chat))
            if self._label_names:
                row["label"] = _label_name(component.task, item.record)
            marks = {"epoch": draw_key.epoch, "repeat": draw_key.repeat, "wording": wording}
            yield row | {mark: marks[mark] for mark in self._marks}

    def _draw_ways(self, item: Item) -> Iterator[tuple[str, int]]:
        part, draw_key = item.component.part, item.draw_key
        for name in draw_key.choose("template", item.component.weights, part.drawn or 1):
            k = draw_key.choose(f"shots {name}", {str(k): 1.0 for k in part.shots})[0]
            yield name, int(k)

    def _show(self, item: Item, k: int) -> tuple[Record, ...]:
        component = item.component
        if component.name not in self._demonstrations:
            selection = component.part.selection or default_selection(component.task)
            self._demonstrations[component.name] = RowDemonstrations(
                self._pool(component), selection, component.part.order, self.mixture.seed
            )
        return self._demonstrations[component.name](item.record, k, item.draw_key)

    def _pool(self, component: Component) -> list[Record]:
        import numpy

        kept, limit = self.pools[component.name], component.part.train_limit
        return kept.gather(kept.deal()[:limit] if limit else numpy.sort(kept.deal()))

    @cached_property
    def pools(self) -> Mapping[str, Candidates]:
        """The candidates that the demonstrations of every part come from: training records, whatever the split is."""
        if self.mixture.split in (None, TRAIN):
            return self.candidates
        return self._gather_candidates(self.mixture.model_copy(update={"split": None}))

    @cached_property
    def _label_names(self) -> bool:
        """Whether labels are written by name: numbers cannot stand in one column with free answers."""
        return len({each.task.is_free_text for each in self.components}) > 1

    @cached_property
    def _marks(self) -> list[str]:
        """The columns that rows have because the set has several of what they say."""
        reworded = any(list(each.wordings) != [OWN] for each in self.components)
        again = any(self.counts[name] > len(dealt) for name, dealt in self._dealt.items())
        several = {
            "epoch": self.mixture.epochs > 1,
            "repeat": again or len(self.components) > 1,
            "wording": reworded,
        }
        return [mark for mark, varies in several.items() if varies]

    def _gather_candidates(self, mixture: Mixture) -> dict[str, Candidates]:
        sources: dict[object, CandidateSource] = {}
        for each in self.components:
            sources.setdefault(each.source, CandidateSource(each.name, each.task, each.part.data))
        candidates = dict(zip(sources, gather_candidates(list(sources.values()), mixture), strict=True))
        return {each.name: candidates[each.source] for each in self.components}

    def _deal(self, component: Component) -> NDArray[Any]:
        part, kept = component.part, self.candidates[component.name]
        if not len(kept.findings.codes):
            raise DataError(f"{kept.place}: holds no records, which the rows of {part.task!r} are made of; give some")
        return kept.deal(balance=part.balance)[: part.limit]

    def _count(self) -> dict[str, int]:
        names, there = list(self._dealt), [len(dealt) for dealt in self._dealt.values()]
        cap = self.mixture.cap
        total = self.mixture.limit or sum(count if cap is None else min(count, cap) for count in there)
        if len(names) == 1:
            return {names[0]: total}
        self._shares = share_records(there, self.mixture)
        dealt = Counter(itertools.islice(deal_parts(self._shares), total))
        return {name: dealt[place] for place, name in enumerate(names)}

    def _turns(self) -> Iterator[int]:
        total = sum(self.counts.values())
        return (
            itertools.repeat(0, total) if len(self.counts) == 1 else itertools.islice(deal_parts(self._shares), total)
        )

    def _visit(self, component: Component) -> Iterator[tuple[Record, int]]:
        """Yield one epoch's records of a part, each with how often it came before.

        Where there is a limit they come shuffled, so that fewer are the beginning of more; else as in the data.
        """
        count, dealt, kept = self.counts[component.name], self._dealt[component.name], self.candidates[component.name]
        repeats, rest = divmod(count, len(dealt))
        if self.mixture.limit or component.part.limit:
            if component.name not in self._gathered:
                self._gathered[component.name] = kept.gather(dealt[:count])
            records = self._gathered[component.name]
            yield from ((record, repeat) for repeat in range(repeats) for record in records)
            yield from ((record, repeats) for record in records[:rest])
            return
        for repeat in range(repeats):
            yield from zip(kept.read(dealt), itertools.repeat(repeat))
        if rest:
            yield from zip(kept.read(dealt[:rest]), itertools.repeat(repeats))


def _label_name(task: Task, record: Record) -> str | None:
    """Return a label as text: its name where it is one of several."""
    names = record.choices or task.labels
    return names[record.label] if names and isinstance(record.label, int) else record.label  # type: ignore[return-value]


def make_set(
    task: Task | Mixture | str | Path,
    template: Templates = None,
    **settings: Any,
) -> TrainingSet:
    """Return the training set that the arguments of `build_pairs` ask for: of a mixture, or of one task.

    Copies and what is tested on are left out unless `copies` says otherwise, but for plain pairs.
    Raises DataError for settings that do not go with it.
    """
    if not isinstance(task, Mixture) and not isinstance(task, Task) and is_mixture(task):
        task = load_mixture(task)
    if "templates" in settings:
        raise DataError("templates are given as the second argument: one, a list of them, or name -> weight")
    if "k" in settings:
        settings["shots"] = settings.pop("k")
    if isinstance(task, Mixture):
        return TrainingSet(_override(task, template, settings))
    copies = "keep" if is_plain(template, settings) else "near"
    name = task.name if isinstance(task, Task) else Path(task).stem
    own = {key: value for key, value in settings.items() if key in MixturePart.model_fields}
    common = {key: value for key, value in settings.items() if key not in own}
    given = _list_templates(template)
    own |= {"task": str(task.path) if isinstance(task, Task) else str(task)}
    own |= {"templates": {str(each if isinstance(each, str) else each.name): weight for each, weight in given}}
    mixture = make_mixture({"copies": copies, **common, "tasks": {name: own}}, f"training set of {name!r}")
    part = mixture.tasks[name]
    loaded = task if isinstance(task, Task) else None
    if all(isinstance(each, str) for each, _ in given):
        return TrainingSet(mixture, [load_component(name, part, loaded)])
    templates = [(load_template(each) if isinstance(each, str) else each, weight) for each, weight in given]
    return TrainingSet(mixture, [load_component(name, part, loaded, templates)])


def _override(mixture: Mixture, template: Any, settings: Mapping[str, Any]) -> Mixture:
    if template is not None:
        raise DataError("a mixture names its templates itself, task by task; give no template beside it")
    given = dict(settings)
    data = given.pop("data", None)
    changed = make_mixture({**mixture.model_dump(), **given}, "mixture")
    return changed if data is None else changed.at(data)


def _list_templates(template: Templates) -> list[tuple[Template | str, float | None]]:
    """Return templates or their names, each with its weight or None."""
    named: Any = name_templates(template)
    if named is None:
        return []
    if isinstance(named, Mapping):
        return list(named.items())
    return [(each, None) for each in ([named] if isinstance(named, Template | str) else named)]
