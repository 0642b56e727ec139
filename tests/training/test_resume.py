"""A training that was stopped goes on where it was and ends with the same bytes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from promptkit.adapters.card import Adapter
from promptkit.errors import RunError, TrainError
from promptkit.models import Model
from promptkit.training import train
from promptkit.training import validation as judge
from promptkit.training.checkpoints import last_checkpoint, started_dtype, unfinished
from tests.helpers.training_fakes import files, model, rows, saved

# peft asks transformers by an old name when it wraps a network
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def learn(out: Path, stop: int | None = None, **changes: Any) -> Adapter:
    """Train for three epochs of four steps, dropout included; stopped by Ctrl-C in the step `stop`."""
    seen: list[int] = []

    def progress(done: int, total: int) -> None:
        seen.append(done)
        if done == stop:
            raise KeyboardInterrupt

    given = {"dropout": 0.2, "epochs": 3, "batch_size": 8, "save_seconds": 0.0, "patience": 3, "progress": progress}
    adapter = train(model(), rows(27), validation=rows(6, seed=2), out=out, **{**given, **changes})
    assert seen[-1] == 12
    assert seen == list(range(seen[0], 13))
    return adapter


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a training that nothing stopped and that kept no state."""
    return files(learn(tmp_path_factory.mktemp("whole") / "adapter", save_seconds=None))


@pytest.mark.parametrize("stop", [2, 5, 7, 12], ids=["first-epoch", "second-epoch-begins", "mid-epoch", "last-step"])
def test_stopped_training_ends_with_the_same_bytes(stop: int, whole: dict[str, bytes], tmp_path: Path) -> None:
    """Wherever it is stopped: weights, card with losses and accuracies, everything; the state is gone then."""
    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path / "adapter", stop)
    assert last_checkpoint(unfinished(tmp_path / "adapter")) is not None
    assert started_dtype(tmp_path / "adapter") == "float32"
    assert not (tmp_path / "adapter").exists()
    assert files(learn(tmp_path / "adapter")) == whole
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_stopped_while_it_is_judged(
    whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Between an epoch's last step and its accuracy nothing is kept: it is judged, in silence, on going on."""

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(judge, "score", stop)
        with pytest.raises(KeyboardInterrupt):
            learn(tmp_path / "adapter")
    assert files(learn(tmp_path / "adapter")) == whole
    assert capfd.readouterr() == ("", "")


def test_stopped_again_and_again(whole: dict[str, bytes], tmp_path: Path) -> None:
    """Several stops, parts of batches and PiSSA's changed base weights do no harm."""
    given = {"kind": "pissa", "micro_batch": 3}
    for stop in (3, 6, 10):
        with pytest.raises(KeyboardInterrupt):
            learn(tmp_path / "stopped", stop, **given)
    again = learn(tmp_path / "stopped", **given)
    assert files(again) == files(learn(tmp_path / "plain", **given, save_seconds=None)) != whole


def test_half_written_checkpoint_is_passed_over(whole: dict[str, bytes], tmp_path: Path) -> None:
    """A kill in the middle of saving leaves a checkpoint without its last file: the one before it counts."""
    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path / "adapter", 8)
    newest = last_checkpoint(unfinished(tmp_path / "adapter"))
    assert newest is not None
    (newest / "promptkit_course.json").unlink()
    (newest / "optimizer.pt").write_bytes(b"half")
    assert last_checkpoint(unfinished(tmp_path / "adapter")) not in (newest, None)
    assert files(learn(tmp_path / "adapter")) == whole


def test_another_training_is_not_gone_on_with(tmp_path: Path) -> None:
    """Other settings or rows than those of the unfinished training are an error that says what differs."""
    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path / "adapter", 3)
    with pytest.raises(RunError, match=r"adapter.part: an unfinished training was started with seed = 0, not 1; give"):
        learn(tmp_path / "adapter", seed=1)
    with pytest.raises(RunError, match=r"an unfinished training was started with pairs ="):
        train(model(), rows(20), out=tmp_path / "adapter", dropout=0.2, batch_size=8, patience=3, save_seconds=0)
    assert last_checkpoint(unfinished(tmp_path / "adapter")) is not None


def stopper(stop: int | None) -> Callable[[int, int], None]:
    """Return what stops a training by Ctrl-C in one step."""

    def progress(done: int, total: int) -> None:
        if done == stop:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("change", [{"choices": [" positive", " negative"]}, {"messages": []}])
def test_rows_that_say_the_same_otherwise_are_others(change: dict[str, Any], tmp_path: Path) -> None:
    """Rows with other choices or turns are another training, though prompts and completions are the same."""
    turns = [{"role": "user", "content": "?"}]
    given = [{**row, "messages": turns} for row in rows(20)]

    def start(rows_: list[dict[str, Any]], stop: int | None) -> None:
        train(model(), rows_, out=tmp_path / "adapter", batch_size=8, save_seconds=0, progress=stopper(stop))

    with pytest.raises(KeyboardInterrupt):
        start(given, 3)
    with pytest.raises(RunError, match=r"an unfinished training was started with pairs ="):
        start([{**row, **change} for row in given], None)


def test_folder_of_someone_else_is_left_alone(tmp_path: Path) -> None:
    """A folder with the state's name that holds something else is an error, and stays as it is."""
    (tmp_path / "adapter.part").mkdir()
    (tmp_path / "adapter.part" / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match=r"adapter.part: exists and holds no unfinished training; move it"):
        learn(tmp_path / "adapter")
    assert (tmp_path / "adapter.part" / "mine.txt").read_text() == "mine"
    (tmp_path / "adapter.part" / "mine.txt").unlink()
    (tmp_path / "adapter.part" / "training.json").write_text('{"mine": 1}')
    with pytest.raises(RunError, match=r"adapter.part: exists and holds no unfinished training; move it"):
        learn(tmp_path / "adapter")
    assert (tmp_path / "adapter.part" / "training.json").read_text() == '{"mine": 1}'


def test_training_that_cannot_succeed_leaves_nothing(tmp_path: Path) -> None:
    """After an error of its own there is nothing to go on from; state without a place is refused."""
    with pytest.raises(TrainError, match="the loss of epoch 1 is"):
        learn(tmp_path / "adapter", learning_rate=1e30, dropout=0.0)
    assert not list(tmp_path.iterdir())
    with pytest.raises(TrainError, match=r"is kept beside `out`: give that too"):
        train(model(), rows(8), save_seconds=1)


def test_two_processes_do_not_share_a_state(tmp_path: Path) -> None:
    """While one process trains, another that is given the same output is refused."""

    def meanwhile(done: int, total: int) -> None:
        with pytest.raises(RunError, match=r"another process is at this training"):
            train(model(), rows(8), epochs=1, out=tmp_path / "adapter", save_seconds=0)

    train(model(), rows(8), epochs=1, out=tmp_path / "adapter", save_seconds=0, progress=meanwhile)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


KILLED = """
import os, signal, sys
from promptkit import train
from promptkit import load_model
from tests.helpers.training_fakes import rows

def progress(done, total):
    if done == 5 and sys.argv[3] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)

train(load_model(sys.argv[1]), rows(20), batch_size=8, dropout=0.1, out=sys.argv[2], save_seconds=0, progress=progress)
"""


def test_killed_process_goes_on(tmp_path: Path) -> None:
    """After kill -9 in another process, the same training goes on here and equals one that ran through."""
    base: Model = saved(model(), tmp_path / "base")
    run = [sys.executable, "-c", KILLED, base.name, str(tmp_path / "adapter"), "kill"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(run, env=environment, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    state = json.loads((tmp_path / "adapter.part" / "training.json").read_text())
    assert state["settings"]["dropout"] == 0.1
    given = {"batch_size": 8, "dropout": 0.1, "save_seconds": 0}
    again = train(base, rows(20), out=tmp_path / "adapter", **given)
    assert files(again) == files(train(base, rows(20), out=tmp_path / "through", **given))


def no_training(done: int, total: int) -> None:
    """Take the steps of a training that is not to be."""
    pytest.fail(f"step {done} of {total}")


def test_an_adapter_that_was_published_is_not_trained_again(whole: dict[str, bytes], tmp_path: Path) -> None:
    """After a kill between the adapter and the end of its state, the same call returns it and removes the state."""
    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path / "adapter", 8)
    shutil.copytree(tmp_path / "adapter.part", tmp_path / "kept")
    adapter = learn(tmp_path / "adapter")
    (tmp_path / "kept").rename(tmp_path / "adapter.part")
    given: dict[str, Any] = {"dropout": 0.2, "epochs": 3, "batch_size": 8, "save_seconds": 0.0, "patience": 3}
    pairs, validation = rows(27), rows(6, seed=2)
    again = train(model(), pairs, validation=validation, out=tmp_path / "adapter", **given, progress=no_training)
    assert again.losses == adapter.losses
    assert files(again) == whole
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


@pytest.mark.parametrize("inside", ["checkpoint-2024-results/thesis.tex", "checkpoint-8/thesis.tex", "notes.txt"])
def test_a_foreign_file_in_a_state_stops_it(tmp_path: Path, inside: str) -> None:
    """Anything that promptkit did not write is named, and everything stays as it is."""
    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path / "adapter", 8)
    mine = tmp_path / "adapter.part" / inside
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    with pytest.raises(
        RunError, match=rf"adapter.part: holds '{inside}', which promptkit did not write; move that, or"
    ):
        learn(tmp_path / "adapter")
    assert mine.read_text() == "mine"
    assert last_checkpoint(unfinished(tmp_path / "adapter"))


def test_a_state_without_the_mark_is_somebody_elses(tmp_path: Path) -> None:
    """A folder that looks like the state of a training, also an empty one, is not touched."""
    folder = tmp_path / "adapter.part"
    folder.mkdir()
    with pytest.raises(RunError, match=r"adapter.part: exists and holds no unfinished training; move it"):
        learn(tmp_path / "adapter")
    (folder / "checkpoint-1").mkdir()
    (folder / "checkpoint-1" / "trainer_state.json").write_text("mine")
    with pytest.raises(RunError, match=r"adapter.part: exists and holds no unfinished training; move it"):
        learn(tmp_path / "adapter")
    assert (folder / "checkpoint-1" / "trainer_state.json").read_text() == "mine"
