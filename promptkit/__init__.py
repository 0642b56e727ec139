"""Prompts and training pairs from one template: compared by accuracy, stability and cost.

The public names are loaded when they are first used, so that importing promptkit is quick and
nothing heavy (torch, transformers, datasets, peft) is loaded before it is needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from promptkit._version import __version__ as __version__

if TYPE_CHECKING:
    from promptkit.adapters.loading import load_model as load_model
    from promptkit.adapters.merge import merge as merge
    from promptkit.building.build import build_pairs as build_pairs
    from promptkit.building.build import build_prompts as build_prompts
    from promptkit.data.records import load_records as load_records
    from promptkit.data.tasks import load_task as load_task
    from promptkit.errors import PromptkitError as PromptkitError
    from promptkit.experiments.compare import compare as compare
    from promptkit.experiments.study import study as study
    from promptkit.linting.lint import lint as lint
    from promptkit.scoring import score as score
    from promptkit.templating.template import load_template as load_template
    from promptkit.training import train as train


_HOME = {
    "PromptkitError": "promptkit.errors",
    "build_pairs": "promptkit.building.build",
    "build_prompts": "promptkit.building.build",
    "compare": "promptkit.experiments.compare",
    "lint": "promptkit.linting.lint",
    "load_model": "promptkit.adapters.loading",
    "load_records": "promptkit.data.records",
    "load_task": "promptkit.data.tasks",
    "load_template": "promptkit.templating.template",
    "merge": "promptkit.adapters.merge",
    "score": "promptkit.scoring",
    "study": "promptkit.experiments.study",
    "train": "promptkit.training",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'promptkit' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
