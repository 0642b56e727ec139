"""An unfinished training into a folder beside its output, from which it goes on, and back."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainingArguments

from promptkit.errors import RunError, TrainError
from promptkit.files import unwritable
from promptkit.lock import take_lock
from promptkit.parsing import parse_json
from promptkit.store import first_difference, write_whole
from promptkit.train.judge import COURSE, Judge
from promptkit.train.processes import as_the_first, gather

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState

_WHAT, _LOCK = "training.json", "lock"
_OWN = re.compile(r"\.?training\.json.*|lock|(tmp-)?checkpoint-\d+.*")  # all that Trainer and this module put there


def unfinished(out: Path) -> Path:
    """Return where the state of a training into `out` is kept until it is done: `out` with .part behind it."""
    return out.with_name(f"{out.name}.part")


@contextmanager
def kept_state(out: Path, what: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the folder with the state of this training, new or from before; it is gone after the block.

    It stays where the block is left early and there is something to go on from; a training that cannot succeed
    (TrainError) leaves nothing. `what` is everything the adapter depends on; one process of several looks after it.

    Raises RunError where the folder holds another training or something else, is used by another process,
    or cannot be written.
    """
    folder = unfinished(out)
    lock: list[IO[bytes]] = []
    as_the_first(lambda: lock.append(_open(folder, what)))
    done = False
    try:
        yield folder
        done = True
    except TrainError:
        done = True
        raise
    finally:
        for file in lock:
            if done or last_checkpoint(folder) is None:
                shutil.rmtree(folder, ignore_errors=True)
            file.close()


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint of a folder, None where there is none."""
    whole = [path.parent for path in folder.glob(f"checkpoint-*/{COURSE}")]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def started_dtype(out: Path) -> str | None:
    """Return the number format of the unfinished training into `out`, None where there is none."""
    folder = unfinished(out)
    return str(_read(folder / _WHAT)["dtype"]) if last_checkpoint(folder) else None


class Checkpoints(TrainerCallback):
    """Has Trainer save its state every `seconds`, and the judge's course with it.

    Not at the last step of an epoch, only once the epoch is judged: what comes between is not done again.
    """

    def __init__(self, judge: Judge, seconds: float) -> None:
        self.judge = judge
        self.seconds = seconds
        self.saved = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step % (state.max_steps // int(args.num_train_epochs)):
            self._save_if_due(control)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not control.should_training_stop:
            self._save_if_due(control)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.judge.gather_loss()
        gather(None)  # all processes have written their part before the file that says the whole is there
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        as_the_first(lambda: self.judge.save(folder))
        self.saved = time.monotonic()

    def _save_if_due(self, control: TrainerControl) -> None:
        control.should_save = as_the_first(lambda: time.monotonic() - self.saved >= self.seconds)


def _open(folder: Path, what: Mapping[str, Any]) -> IO[bytes]:
    """Make the folder, or find it as this training's; return the file that is locked while it is in use."""
    note = folder / _WHAT
    if folder.exists() and not _holds_training(folder):
        raise RunError(f"{folder}: exists and holds no unfinished training; move it, or choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder)
    except OSError as error:
        raise unwritable(folder, error) from error
    if last_checkpoint(folder) is None:
        write_whole(note, json.dumps(what, indent=2).encode() + b"\n")
    difference = first_difference(_read(note), json.loads(json.dumps(what)))
    if difference:
        lock.close()
        raise RunError(
            f"{folder}: an unfinished training was started with {difference}; give the same again to go on with it, "
            "or another folder, or remove this one"
        )
    return lock


def _holds_training(folder: Path) -> bool:
    """Whether a folder is empty or holds the state of a training, and nothing else."""
    if not folder.is_dir() or not all(_OWN.fullmatch(path.name) for path in folder.iterdir()):
        return False
    note = folder / _WHAT
    return not note.exists() or {"settings", "pairs"} <= _read(note).keys()


def _read(note: Path) -> Any:
    try:
        return parse_json(note.read_bytes())
    except (OSError, ValueError) as error:
        raise RunError(f"{note}: cannot be read ({error}); remove {note.parent} to start over") from error


def _lock(folder: Path) -> IO[bytes]:
    file = (folder / _LOCK).open("ab")
    if not take_lock(file):
        file.close()
        raise RunError(f"{folder}: another process is at this training; wait, or choose another folder")
    return file
