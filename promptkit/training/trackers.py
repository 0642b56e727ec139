"""Report to the experiment trackers that transformers knows: TensorBoard, Weights & Biases, MLflow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from transformers import TrainerCallback
from transformers.integrations import MLflowCallback, TensorBoardCallback, WandbCallback

from promptkit.errors import TrainError, nearest

_TRACKERS = {"tensorboard": TensorBoardCallback, "wandb": WandbCallback, "mlflow": MLflowCallback}


def trackers(names: str | Sequence[str] | None, out: Path | None) -> list[TrainerCallback]:
    """Return the callbacks that report a training to these trackers: losses, learning rate, validation accuracy.

    TensorBoard writes to the folder `out`.logs, or to TENSORBOARD_LOGGING_DIR where that is set. The others are
    configured by their own environment variables (WANDB_PROJECT, MLFLOW_TRACKING_URI and so on).

    Raises TrainError for an unknown name, for one whose package is not installed, and for TensorBoard without a
    place to write to.
    """
    chosen = [names] if isinstance(names, str) else list(names or ())
    callbacks = []
    for name in chosen:
        if name not in _TRACKERS:
            allowed = ", ".join(_TRACKERS)
            raise TrainError(f"training: cannot report to {name!r}: expected {allowed}.{nearest(name, _TRACKERS)}")
        if find_spec(name) is None:
            raise TrainError(f"training: reporting to {name} needs its package: pip install {name}")
        callback = _TRACKERS[name]()
        if name == "tensorboard":
            callback.logging_dir = os.environ.get("TENSORBOARD_LOGGING_DIR") or _logs(out)
        callbacks.append(callback)
    return callbacks


def _logs(out: Path | None) -> str:
    if out is None:
        raise TrainError("training: reporting to tensorboard needs a place: give out, or set TENSORBOARD_LOGGING_DIR")
    return str(out.with_name(f"{out.name}.logs"))
