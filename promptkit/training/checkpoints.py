"""Keep an unfinished training in a folder beside its output, from which it goes on."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainingArguments

from promptkit.adapters.card import AdapterCard, read_card
from promptkit.errors import RunError, TrainError
from promptkit.storage.files import folders_above, unwritable, write_whole
from promptkit.storage.parsing import first_difference, parse_json
from promptkit.storage.staging import MARK, TRAINING, Place, enter_place, find_foreign, find_place, make_place, sweep
from promptkit.training.processes import as_the_first, gather
from promptkit.training.validation import HISTORY, Validation

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState

_WHAT = "training.json"
_CHECKPOINT = re.compile(r"checkpoint-\d+")


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
    places: list[Place] = []
    as_the_first(lambda: places.append(_open(out, what)))
    done = False
    try:
        yield folder
        done = True
    except TrainError:
        done = True
        raise
    finally:
        for place in places:
            if done or last_checkpoint(folder) is None:
                place.remove()
            place.close()


def find_result(out: Path, what: Mapping[str, Any]) -> AdapterCard | None:
    """Return the card of the adapter at `out` where this very training made it and was killed right after that.

    Its state is there still, and is removed. None where nothing is at `out`. Raises RunError where something else is.
    """
    if not os.path.lexists(out):
        return None
    folder = unfinished(out)
    with suppress(RunError, TrainError):
        place = find_place(folder, TRAINING) if os.path.lexists(folder) else None
        if place:
            card, note = read_card(out), _read(folder / _WHAT)
            same = note == json.loads(json.dumps(what)) and _describe(card) == _describe_note(note)
            if same and not find_foreign(folder):
                place.remove()
                return card
            place.close()
    raise RunError(f"{out}: exists already; choose another folder for the adapter, or remove this one")


def may_have_result(out: Path) -> bool:
    """Whether something is at `out` beside the state of a training, so that `find_result` may know it."""
    return os.path.lexists(out) and (unfinished(out) / MARK).is_file()


def _describe(card: AdapterCard) -> tuple[Any, ...]:
    return card.settings.model_dump(mode="json"), card.base_hash, card.dtype, card.train.pairs_hash


def _describe_note(note: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(note.get(name) for name in ("settings", "model_hash", "dtype", "pairs"))


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint of a folder, None where there is none."""
    found = [path.parent for path in folder.glob(f"checkpoint-*/{HISTORY}")]
    whole = [path for path in found if _CHECKPOINT.fullmatch(path.name) and not path.is_symlink()]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def started_dtype(out: Path) -> str | None:
    """Return the number format of the unfinished training into `out`, None where there is none."""
    folder = unfinished(out)
    is_ours = (folder / MARK).is_file() and last_checkpoint(folder) and (folder / _WHAT).is_file()
    return str(_read(folder / _WHAT)["dtype"]) if is_ours else None


class Checkpoints(TrainerCallback):
    """Has Trainer save its state every `seconds`, and the validator's history with it.

    Not at the last step of an epoch, only once the epoch is judged: what comes between is not done again.
    """

    def __init__(self, validator: Validation, seconds: float) -> None:
        self.validator = validator
        self.seconds = seconds
        self.saved = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step % (state.max_steps // int(args.num_train_epochs)):
            self._save_if_due(control)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not control.should_training_stop:
            self._save_if_due(control)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.validator.gather_loss()
        gather(None)  # all processes have written their part before the file that says the whole is there
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        as_the_first(lambda: self.validator.save(folder))
        self.saved = time.monotonic()

    def _save_if_due(self, control: TrainerControl) -> None:
        control.should_save = as_the_first(lambda: time.monotonic() - self.saved >= self.seconds)


def _open(out: Path, what: Mapping[str, Any]) -> Place:
    """Make the folder beside `out`, or find it as this training's; it is this process's until the place is closed."""
    folder = unfinished(out)
    try:
        sweep(folder)
        if os.path.lexists(folder):
            place = enter_place(folder, TRAINING, called="training", fix="choose another folder")
        else:
            place = _make(folder)
    except OSError as error:
        raise unwritable(folder, error) from error
    note = folder / _WHAT
    try:
        if last_checkpoint(folder) is None:
            write_whole(note, json.dumps(what, indent=2).encode() + b"\n")
        difference = first_difference(_read(note), json.loads(json.dumps(what)))
        if difference:
            raise RunError(
                f"{folder}: an unfinished training was started with {difference}; give the same again to go on with "
                "it, or another folder, or remove this one"
            )
    except BaseException:
        place.close()
        raise
    return place


def _make(folder: Path) -> Place:
    with folders_above(folder):
        return make_place(folder, TRAINING).move(folder)


def _read(note: Path) -> Any:
    try:
        return parse_json(note.read_bytes())
    except (OSError, ValueError) as error:
        raise RunError(f"{note}: cannot be read ({error}); remove {note.parent} to start over") from error
