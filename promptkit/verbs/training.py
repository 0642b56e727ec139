"""A task or a file of pairs into an adapter."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from promptkit.data import load_records, number_rows
from promptkit.errors import DataError, RunError
from promptkit.prompt import build_prompt
from promptkit.task import Task, load_task
from promptkit.template import BoundTemplate
from promptkit.verbs.templates import bind_one
from promptkit.work import Track


def train_source(
    source: str,
    *,
    model: str,
    templates: Sequence[str] = (),
    data: str | None = None,
    seed: int = 0,
    chat: bool = False,
    dtype: str = "float32",
    device: str | None = None,
    train_limit: int | None = None,
    out: str | None = None,
    track: Track | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Train one adapter on a task's training split, or on the rows of a pairs file; return what came out.

    With a task, validation records choose the epoch. `settings` are those of `train`. Raises RunError
    where `out` exists already.
    """
    from promptkit.models import load_model
    from promptkit.train import train

    path = Path(out) if out else Path("adapters") / f"{Path(source).stem}-seed{seed}"
    if path.exists():
        raise RunError(f"{path}: exists already; give another --out, or remove it first")
    validation = None
    if Path(source).is_file() and not source.endswith(".toml"):
        pairs: Iterable[Any] = list(itertools.islice(_read_pairs(Path(source), chat), train_limit))
    else:
        task, bound = load_task(source), bind_one(load_task(source), templates)
        pairs, validation = _training_set(task, bound, data, seed, chat, train_limit)
    adapter = train(
        load_model(model, dtype=dtype, device=device),
        pairs,
        seed=seed,
        chat=chat,
        validation=validation or None,
        out=path,
        progress=track("training") if track else None,
        **settings,
    )
    from promptkit.adapter import read_card

    card = read_card(path)
    return {
        "adapter": str(adapter.path),
        "task": card.task,
        "template": card.template,
        "model": model,
        "rows": adapter.rows,
        "epochs": adapter.epochs,
        "best_epoch": adapter.best_epoch,
        "losses": list(adapter.losses),
        "validation": list(adapter.validation),
        "tokens_trained": adapter.tokens_trained,
        "seconds": adapter.seconds,
    }


def _read_pairs(path: Path, chat: bool) -> Iterator[Any]:
    from promptkit.train.batches import read_pairs

    for number, row in number_rows(path):
        try:
            yield from read_pairs([row], chat=chat)
        except DataError as error:
            raise DataError(f"{path}:{number}: {str(error).partition(': ')[2] or error}") from error


def _training_set(
    task: Task, bound: BoundTemplate, data: str | None, seed: int, chat: bool, limit: int | None
) -> tuple[list[Any], list[Any]]:
    """Return (pairs, validation prompts); validation comes from its own split or is cut from training."""
    from promptkit.pair import build_pair
    from promptkit.splits import split_validation

    records = load_records(task, "train", data=data)
    own = data is None or Path(data).is_dir()
    validation, kept = split_validation(task, records, data=data, limit=limit, seed=seed, own_split=own)
    pairs = [build_pair(bound, record, chat=chat) for record in kept]
    return pairs, [build_prompt(bound, record, chat=chat) for record in validation]
