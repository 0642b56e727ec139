"""List what can be named, with a line on each."""

from __future__ import annotations

from collections.abc import Callable

from promptkit.data.tasks import Task, find_tasks, load_task
from promptkit.demonstrations import SELECTIONS
from promptkit.demonstrations.orders import ORDERS
from promptkit.errors import PromptkitError
from promptkit.experiments.grid import find_presets, load_settings
from promptkit.experiments.plan import METHODS
from promptkit.templating.template import Template, find_templates, load_template


def list_names(kind: str | None = None) -> dict[str, dict[str, str]]:
    """Return, per kind of thing that can be named, name -> description."""
    from promptkit.models.location import NAMES

    makers: dict[str, Callable[[], dict[str, str]]] = {
        "tasks": lambda: {name: _described(load_task, name) for name in find_tasks()},
        "templates": lambda: {name: _described(load_template, name) for name in find_templates()},
        "methods": lambda: {name: _METHODS[name] for name in METHODS},
        "selections": lambda: {name: each.about for name, each in SELECTIONS.items()},
        "orders": lambda: {
            **{name: each.about for name, each in ORDERS.items()},
            "0, 1, …": _PERMUTATION,
        },
        "presets": lambda: {name: _say_preset(name) for name in find_presets()},
        "models": lambda: (
            dict.fromkeys(NAMES, "ships with promptkit") | {"FOLDER or HUB/ID": "any causal model of transformers"}
        ),
    }
    return {name: make() for name, make in makers.items() if kind in (None, name)}


def _say_preset(name: str) -> str:
    try:
        settings = load_settings(name)
    except PromptkitError as error:
        return f"! {error}"
    return f"{settings.reference.split(',')[0]}: {settings.about}"


def _described(load: Callable[[str], Task | Template], name: str) -> str:
    """Return what a file says of itself, or what is wrong with it: one bad file hides no other."""
    try:
        return load(name).description
    except PromptkitError as error:
        return f"! {error}"


_METHODS = {
    "zero-shot": "the instruction and the query",
    "few-shot": "with k solved demonstrations",
    "zero-shot-cot": "the model reasons first",
    "few-shot-cot": "with k demonstrations that reason first",
    "lora": "an adapter trained on the pairs, prompted zero-shot",
}
_PERMUTATION = "One of the k! permutations by its number."
