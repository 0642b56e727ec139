"""Prompts and training pairs from one template: compared by accuracy, stability and cost.

The public names are loaded when they are first used, so that importing promptkit is quick and
nothing heavy (torch, transformers, datasets, peft) is loaded before it is needed.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from promptkit._version import __version__ as __version__

if TYPE_CHECKING:
    from promptkit.build import build_pairs as build_pairs
    from promptkit.build import build_prompts as build_prompts
    from promptkit.compare import compare as compare
    from promptkit.data import load_records as load_records
    from promptkit.errors import PromptkitError as PromptkitError
    from promptkit.lint import lint as lint
    from promptkit.merge import merge as merge
    from promptkit.models.adapter import load_model as load_model
    from promptkit.score import score as score
    from promptkit.study import study as study
    from promptkit.task import load_task as load_task
    from promptkit.template import load_template as load_template
    from promptkit.train import train as train


_HOME = {
    "PromptkitError": "promptkit.errors",
    "build_pairs": "promptkit.build",
    "build_prompts": "promptkit.build",
    "compare": "promptkit.compare",
    "lint": "promptkit.lint",
    "load_model": "promptkit.models.adapter",
    "load_records": "promptkit.data",
    "load_task": "promptkit.task",
    "load_template": "promptkit.template",
    "merge": "promptkit.merge",
    "score": "promptkit.score",
    "study": "promptkit.study",
    "train": "promptkit.train",
}
__all__ = sorted(_HOME)


class _Package(ModuleType):
    """The package's own type: `promptkit.score` stays the function once the module `score` is imported.

    Importing a module sets it as an attribute of its package; here the public name of the same
    spelling is set in its place. `from promptkit.score import …` is not concerned.
    """

    def __getattr__(self, name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module 'promptkit' has no attribute {name!r}")
        value = getattr(importlib.import_module(_HOME[name]), name)
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and _HOME.get(name) == value.__name__:
            value = getattr(value, name)
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *__all__]


sys.modules[__name__].__class__ = _Package
