"""Train an adapter on a task or on a file of pairs."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptkit.data.local import Data
from promptkit.data.records import hash_order
from promptkit.data.splits import hash_one_file, load_training, note_unlearned
from promptkit.data.tasks import Task, load_task
from promptkit.errors import TrainError
from promptkit.experiments.executor import SAVE_SECONDS, Track
from promptkit.export.formats import read_pair_rows
from promptkit.prompts.prompt import build_prompt, check_system, place_system
from promptkit.storage.files import check_free
from promptkit.storage.row_folders import holds_rows
from promptkit.templating.binding import bind_matching
from promptkit.templating.template import BoundTemplate

if TYPE_CHECKING:
    from promptkit.adapters.card import Adapter
    from promptkit.data.record import Record
    from promptkit.models import Model


def train_source(
    source: str,
    *,
    model: str,
    templates: Sequence[str] = (),
    data: Data | None = None,
    seed: int = 0,
    seeds: Mapping[str, int] | None = None,
    chat: bool = False,
    system: str = "system",
    dtype: str = "float32",
    device: str | None = None,
    trust_remote_code: bool = False,
    train_limit: int | None = None,
    balance: bool = False,
    out: str | None = None,
    track: Track | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Train one adapter on a task's training split, or on the rows of a pairs file; return what came out.

    With a task, validation records choose the epoch; of several templates, each record gets one, drawn by the seed
    for `template`; with `balance` as many records of each label are used. A training that was stopped goes on. `dtype`
    "auto" takes what is faster here, see `choose_dtype`. `settings` are those of `train`. Raises RunError where `out`
    exists already.
    """
    from promptkit.adapters.card import check_seeds
    from promptkit.training import train
    from promptkit.training.checkpoints import may_have_result

    given = dict(seeds or {})
    check_seeds(given)
    check_system(system, chat=chat)
    path = Path(out) if out else Path("adapters") / f"{Path(source).stem}-seed{seed}"
    if not may_have_result(path):
        check_free(path)
    validation, metric, one_file = None, "accuracy", None
    notes: list[str] = []
    if holds_rows(source):
        _refuse_drawn(given)
        read = itertools.islice(read_pair_rows(Path(source), chat=chat), train_limit)
        pairs: Sequence[Any] = [replace(pair, messages=place_system(pair.messages, system)) for pair in read]
    else:
        given = {"data": seed, "template": seed, **given}
        task = load_task(source)
        bounds = bind_matching(task, templates, system=system)
        metric = task.merit
        one_file = hash_one_file(data)
        pairs, validation = _training_set(task, bounds, data, given, chat, train_limit, balance, notes.append)
    base, timed = _load(model, dtype, device, trust_remote_code, pairs, chat, path)
    adapter = train(
        base,
        pairs,
        seed=seed,
        seeds=given,
        chat=chat,
        system=system,
        validation=validation or None,
        metric=metric if validation else "accuracy",
        out=path,
        save_seconds=SAVE_SECONDS,
        one_file=one_file,
        progress=track("training") if track and is_first_process() else None,
        **settings,
    )
    notes += adapter.notes if holds_rows(source) else ()
    timing = {"dtype_seconds": timed} if timed else {}
    return {**describe_training(adapter), "model": model, **timing, "notes": notes}


def describe_training(adapter: Adapter) -> dict[str, Any]:
    """Return what came of a training as JSON, with what the adapter's card says of it."""
    from promptkit.adapters.card import read_card

    card = read_card(adapter.path)
    return {
        "adapter": str(adapter.path),
        "task": card.task,
        "template": card.template,
        "dtype": card.dtype,
        "settings": card.settings.model_dump(mode="json"),
        "rows": adapter.rows,
        "epochs": adapter.epochs,
        "best_epoch": adapter.best_epoch,
        "losses": list(adapter.losses),
        "metric": adapter.metric,
        "validation": list(adapter.validation),
        "tokens_trained": adapter.tokens_trained,
        "padded": adapter.padded,
        "seconds": adapter.seconds,
    }


def is_first_process() -> bool:
    """Return whether this is the only process, or the first of those that a launcher started together."""
    return os.environ.get("RANK", "0") == "0"


def _load(
    name: str,
    dtype: str,
    device: str | None,
    trust_remote_code: bool,
    pairs: Sequence[Any],
    chat: bool,
    out: Path,
) -> tuple[Model, dict[str, float]]:
    """Return the model, and the seconds of a step in each number format that was timed to choose one."""
    from promptkit.adapters.loading import load_model
    from promptkit.training.checkpoints import started_dtype
    from promptkit.training.precision import choose_dtype
    from promptkit.training.processes import as_the_first, join_processes

    options: dict[str, Any] = {"device": device or _own_gpu(), "trust_remote_code": trust_remote_code}
    if dtype != "auto":
        return load_model(name, dtype=dtype, **options), {}
    started = started_dtype(out)
    if started:
        return load_model(name, dtype=started, **options), {}
    model = load_model(name, **options)
    join_processes(model.device)
    timing = as_the_first(lambda: choose_dtype(model, pairs, chat=chat))
    if timing.dtype != model.dtype:
        model = load_model(name, dtype=timing.dtype, **options)
    return model, dict(timing.seconds)


def _own_gpu() -> str | None:
    """Return the GPU of this process, where a launcher started one for each; None leaves the choice open."""
    number = os.environ.get("LOCAL_RANK")
    if number is None or os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"):
        return None if number is None else "cpu"
    import torch

    return f"cuda:{number}" if torch.cuda.is_available() else None


def _refuse_drawn(seeds: Mapping[str, int]) -> None:
    for name in sorted({"data", "template"} & seeds.keys()):
        raise TrainError(f"seed {name!r} goes with a task: the rows of a file were drawn when it was built")


def _training_set(
    task: Task,
    bounds: Sequence[BoundTemplate],
    data: Data | None,
    seeds: Mapping[str, int],
    chat: bool,
    limit: int | None,
    balance: bool,
    say: Callable[[str], None] = lambda note: None,
) -> tuple[list[Any], list[Any]]:
    """Return (pairs, validation prompts), and say what was left out of them."""
    from promptkit.prompts.pair import build_pair

    def draw(record: Record) -> BoundTemplate:
        return bounds[int.from_bytes(hash_order(f"{seeds['template']}:template", record.id)) % len(bounds)]

    training = load_training(task, data=data, limit=None if balance else limit, seed=seeds["data"])
    for note in training.notes:
        say(note)
    validation, kept = list(training.validation), list(training.rows)
    if balance:
        validation, kept = (
            _balance(task, some, seeds["data"], most) for some, most in ((validation, None), (kept, limit))
        )
        if not kept:
            some = f" in {limit} of them" if limit is not None else ""
            raise TrainError(
                f"task {task.name!r}: its training records do not have each of {len(task.labels or ())} labels{some}; "
                "raise --train-limit, or leave --balance out"
            )
    for note in note_unlearned(task, [[record.label for record in kept]]):
        say(note)
    pairs = [build_pair(draw(record), record, chat=chat) for record in kept]
    return pairs, [build_prompt(draw(record), record, chat=chat) for record in validation]


def _balance(task: Task, records: Sequence[Record], seed: int, limit: int | None) -> list[Record]:
    """Return as many records of each label as there are of the rarest, `limit` in all at most."""
    from promptkit.demonstrations.pool import Pool
    from promptkit.demonstrations.selections import deal_balanced

    strands = [list(strand) for strand in deal_balanced(Pool(tuple(records), seed))]
    labels = len(task.labels or ())
    rarest = min(map(len, strands)) if len(strands) == labels else 0
    count = rarest if limit is None else min(rarest, limit // labels)
    return [record for strand in strands for record in strand[:count]]
