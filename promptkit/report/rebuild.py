"""Build the prompts of a run's cells again, where task, data and templates are still the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from promptkit.building.build import Demonstrations
from promptkit.data.local import Data
from promptkit.data.record import Record, hash_records
from promptkit.data.splits import Splits, load_splits
from promptkit.data.tasks import Task, load_task
from promptkit.demonstrations import Draw
from promptkit.errors import RunError, TemplateError
from promptkit.experiments.grid import bind_ways, load_settings
from promptkit.prompts.prompt import render_pieces
from promptkit.report.numbers import name_label
from promptkit.report.run_source import RunSource, condition_of, name_conditions
from promptkit.scoring.condition import Condition

#: What a cell's spec holds beside what its condition does: of these no prompt depends.
_BESIDE = {"model", "dtype", "overlong", "batch_tokens", "test", "pool", "pool_rows", "labels", "scorer", "trainer"}
#: What a condition's spec holds of which no prompt depends.
_NOT_ASKED = {"readings", "domain_seed", "sampling"}


@dataclass(frozen=True)
class ShownPrompt:
    """A cell's prompt for the first record that it was asked, in pieces (kind, text), and what was answered."""

    title: str
    condition: str
    accuracy: float
    interval: Sequence[float]
    record: str
    pieces: tuple[tuple[str, str], ...]
    choices: tuple[str, ...]
    label: str
    predicted: str


def reload_records(source: RunSource, data: Data | None) -> tuple[Task, Splits]:
    """Return the task and the records that the run was made with.

    `data` is where they are, as in `--data`; without it only a task's own generator is asked, never the network.
    Raises PromptkitError where they are not the same any more, or not there.
    """
    settings = source.settings
    task = load_task(settings["task"])
    if task.hash != settings["task_hash"]:
        raise RunError(f"the task file of {task.name!r} has changed since the run")
    if data is None and not task.data.generator:
        raise RunError("give --data with the run's records; a report reads none from a place that only the run names")
    counts = source.result["records"]
    splits = load_splits(
        task,
        data=data,
        split=settings["split"],
        limit=settings["limit"],
        train_limit=None if settings["train_limit"] is None else counts["pool"],
        seed=settings["seed"],
        pool=counts["pool"] > 0,
        cut=settings.get("cut", False),
    )
    for name, records in (("test", splits.test), ("pool", splits.pool)):
        if hash_records(records) != settings[name]:
            raise RunError(f"the {name} records are not those of the run; give --data with those")
    return task, splits


def show_extremes(source: RunSource, task: Task, splits: Splits) -> list[ShownPrompt]:
    """Return the prompts of the best and of the worst prompted cell, the first of equals, on the first record asked.

    Cells from whose prompts demonstrations were dropped are neither. Raises PromptkitError where a cell's prompt cannot
    be rebuilt as it was.
    """
    cells = source.result["cells"]
    prompted = [index for index, cell in enumerate(cells) if cell["method"] != "lora" and not cell.get("dropped")]
    if not prompted:
        raise RunError("every cell is a trained one, or demonstrations were dropped from its prompts")
    best = max(prompted, key=lambda index: cells[index]["accuracy"])
    worst = min(prompted, key=lambda index: cells[index]["accuracy"])
    chosen = (
        [("Best", best)] if cells[best]["accuracy"] == cells[worst]["accuracy"] else [("Best", best), ("Worst", worst)]
    )
    return [_show(source, task, splits, title, index) for title, index in chosen]


def _show(source: RunSource, task: Task, splits: Splits, title: str, index: int) -> ShownPrompt:
    cell, spec, answers = source.result["cells"][index], source.specs[index], source.answers[index]
    condition = _rebuild_condition(task, spec, cell["factors"])
    query = next((record for record in splits.test if record.id == answers.ids[0]), None)  # a budget asks some of them
    if query is None:
        raise RunError(f"the record {answers.ids[0]!r}, which it was asked first, is no test record")
    place = ", ".join(f"{axis} {cell['factors'][axis]}" for axis in ("draw", "order") if axis in cell["factors"])
    labels = source.result.get("labels")
    return ShownPrompt(
        title=title,
        condition=", ".join(part for part in (name_conditions(source.result)[condition_of(cell)], place) if part),
        accuracy=cell["accuracy"],
        interval=cell["ci95"],
        record=query.id,
        pieces=_pieces(condition, query, splits.pool[: spec.get("pool_rows")]),
        choices=condition.bound.choices(query),
        label=name_label(answers.labels[0], labels),
        predicted=name_label(answers.predicted[0], labels),
    )


def _rebuild_condition(task: Task, spec: Mapping[str, Any], factors: Mapping[str, str]) -> Condition:
    """Return the condition whose spec is this; raises PromptkitError where there is none any more."""
    if not spec:
        raise RunError("its cell is gone from the run folder")
    ways = {
        "templates": (factors["template"],),
        **({"formats": (factors["format"],)} if "format" in factors else {}),
        **({"labels": (factors["labels"],)} if "labels" in factors else {}),
        **({"chat": True, "system": spec["system"]} if "system" in spec else {}),
    }
    bound, *_ = [bound for bound, _ in bind_ways(task, load_settings(None, **ways))]
    if bound.template.hash != spec["template_hash"]:
        raise TemplateError(f"the template {factors['template']!r} has changed since the run")
    shown = {key: spec[key] for key in ("k", "chat", "demo_labels", "rationale") if key in spec}
    draw = Draw(**spec["draw"]) if spec.get("draw") else None
    condition = Condition(spec["method"], bound, draw=draw, **shown)
    own = condition.spec()
    asked = {key: value for key, value in spec.items() if key not in _BESIDE | _NOT_ASKED}
    other = sorted(key for key in asked.keys() | own.keys() if asked.get(key) != own.get(key))
    if other:
        raise RunError(f"its cells say {', '.join(other)}, from which this version rebuilds no prompt")
    return condition


def _pieces(condition: Condition, query: Record, pool: Sequence[Record]) -> tuple[tuple[str, str], ...]:
    """Return the prompt's parts by their kinds, or its chat turns by their roles; whole where parts do not make it."""
    (prompt,) = condition.prompts([query], pool)
    if condition.chat:
        return tuple((turn.role, turn.content) for turn in prompt.messages)
    shown: tuple[Record, ...] = ()
    if condition.draw:
        shown = condition.relabel(Demonstrations(pool, condition.draw)(query, condition.k))
    pieces = tuple(render_pieces(condition.bound, query, shown))
    return pieces if "".join(text for _, text in pieces) == prompt.text else (("prompt", prompt.text),)


def first_lines(record: Record) -> str:
    """Return a record's fields as one text."""
    return " / ".join(str(value) for value in record.fields.values())
