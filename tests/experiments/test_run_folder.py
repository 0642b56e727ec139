"""Run folders: whole files, resuming, differences, damage, full disks, and a run killed at any moment."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptkit.errors import RunError
from promptkit.experiments import run_folder as store
from promptkit.experiments.run_folder import Cell, Run, default_folder
from promptkit.storage.files import new_file, write_whole
from promptkit.storage.parsing import cell_key
from promptkit.storage.staging import MADE, host_mark, make_place

SETTINGS = {"task": "reviews", "seed": 0, "shots": [1, 4], "hashes": {"template": "ab12", "test": "cd34"}}
SPEC = {"method": "few-shot", "k": 4, "draw": {"seed": 0, "order": 3}}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def files(folder: Path) -> dict[str, bytes]:
    """Return every file under a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def message(folder: Path, settings: dict[str, Any]) -> str:
    """Return the one-line error that opening the folder raises."""
    with pytest.raises(RunError) as caught:
        Run.open(folder, settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_new_run_says_what_it_runs(tmp_path: Path) -> None:
    """run.json holds the settings and the versions, and nothing of the machine or the moment."""
    Run.open(tmp_path / "a" / "run", SETTINGS)
    content = json.loads((tmp_path / "a" / "run" / "run.json").read_text())
    assert content["settings"] == SETTINGS
    assert content["versions"]["python"] == "{}.{}".format(*sys.version_info)
    assert "torch" in content["versions"]
    assert content.keys() == {"settings", "versions"}
    assert str(Path.home()) not in json.dumps(content)


def test_run_json_is_a_function_of_the_settings(tmp_path: Path) -> None:
    """Two runs of the same settings have the same bytes, whatever the order of the keys."""
    Run.open(tmp_path / "a", SETTINGS)
    Run.open(tmp_path / "b", dict(reversed(SETTINGS.items())))
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_a_run_resumes(tmp_path: Path) -> None:
    """Opened again with equal settings, tuples for lists included, a run has its cells."""
    Run.open(tmp_path / "run", SETTINGS).save(SPEC, {"accuracy": 0.5})
    again = Run.open(tmp_path / "run", {**SETTINGS, "shots": (1, 4)})
    assert again.load(SPEC) == {"accuracy": 0.5}
    assert list(again.cells()) == [Cell(SPEC, {"accuracy": 0.5})]


def test_an_empty_folder_is_free(tmp_path: Path) -> None:
    """A folder without anything in it may become a run."""
    Run.open(tmp_path, SETTINGS)
    assert (tmp_path / "run.json").exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"seed": 1}, "started with seed = 0, not 1;"),
        ({"shots": [1, 8]}, "started with shots = [1, 4], not [1, 8];"),
        ({"hashes": {"template": "ab12", "test": "x"}}, 'started with hashes.test = "cd34", not "x";'),
        ({"dtype": "float32"}, 'started with no dtype, not "float32";'),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    """The first setting that differs is named with both values, and the way out."""
    Run.open(tmp_path / "run", SETTINGS)
    before = files(tmp_path)
    text = message(tmp_path / "run", {**SETTINGS, **change})
    assert text.startswith(f"{tmp_path}/run: this run was {expected}")
    assert text.endswith("give another --out, or the same again")
    assert files(tmp_path) == before


def test_a_setting_that_is_gone_is_refused(tmp_path: Path) -> None:
    """A setting that the run had and that is not given now is a difference."""
    Run.open(tmp_path / "run", SETTINGS)
    assert "started with seed, which is not given now" in message(
        tmp_path / "run", {"task": "reviews"} | {key: SETTINGS[key] for key in ("shots", "hashes")}
    )


def test_other_versions_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of another library version are not mixed in: the package and both versions are named."""
    Run.open(tmp_path / "run", SETTINGS)
    monkeypatch.setattr(store, "versions", lambda: {"python": "3.99"})
    path = tmp_path / "run" / "run.json"
    path.write_text(json.dumps({"settings": SETTINGS, "versions": {"python": "3.11"}}))
    assert 'started with versions.python = "3.11", not "3.99"' in message(tmp_path / "run", SETTINGS)


def test_a_folder_that_is_no_run_is_never_touched(tmp_path: Path) -> None:
    """Somebody's files are no run folder, and stay as they are."""
    (tmp_path / "thesis.tex").write_text("x")
    (tmp_path / ".x.tmp").write_text("x")
    assert message(tmp_path, SETTINGS) == (f"{tmp_path}: exists and holds no run (no run.json); give another --out")
    assert files(tmp_path) == {"thesis.tex": b"x", ".x.tmp": b"x"}


def test_a_file_is_no_run(tmp_path: Path) -> None:
    """An output path that is a file is refused and stays."""
    (tmp_path / "out").write_text("x")
    assert "out: is no run folder (Not a directory); give another --out" in message(tmp_path / "out", SETTINGS)
    assert (tmp_path / "out").read_text() == "x"


@settings(max_examples=40, deadline=None)
@given(VALUES)
def test_what_is_saved_is_loaded(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    """Any JSON comes back as it was, in the spec and in the result."""
    run = Run.open(tmp_path_factory.mktemp("run"), {})
    spec, result = {"value": value}, {"outcome": value}
    assert run.load(spec) is None
    run.save(spec, result)
    assert run.load(spec) == result


def test_a_cell_is_a_function_of_what_was_run(tmp_path: Path) -> None:
    """Equal specs and results give equal bytes, and measures stay out of them."""
    first, second = Run.open(tmp_path / "a", {}), Run.open(tmp_path / "b", {})
    first.save(SPEC, {"x": 0.1 + 0.2, "y": (1, 2)}, measure={"seconds": 1.5})
    second.save(dict(reversed(SPEC.items())), {"y": [1, 2], "x": 0.30000000000000004})
    assert files(tmp_path / "a" / "cells") == files(tmp_path / "b" / "cells")
    assert first.load_measure(SPEC) == {"seconds": 1.5}
    assert second.load_measure(SPEC) is None


def test_one_byte_is_another_cell() -> None:
    """Keys tell a changed value, a changed type and a changed name apart, and nothing else."""
    specs = [{"k": 4}, {"k": 5}, {"k": "4"}, {"K": 4}, {"k": 4.5}, {"k": [4]}, {"k": None}]
    assert len({cell_key(spec) for spec in specs}) == len(specs)
    assert cell_key({"a": 1, "b": (2,)}) == cell_key({"b": [2], "a": 1})


@pytest.mark.parametrize("content", [b"", b'{"spec": {"k"', b"[1]", b'{"spec": {}, "result": {}}', b"\xff"])
def test_a_damaged_cell_is_named(tmp_path: Path, content: bytes) -> None:
    """Files are written whole, so a broken one was damaged from outside; it is not silently replaced."""
    run = Run.open(tmp_path / "run", SETTINGS)
    run.save(SPEC, {})
    path = run.folder / "cells" / f"{cell_key(SPEC)}.json"
    path.write_bytes(content)
    expected = rf"{path}: was damaged or edited from outside .*; delete it and start again"
    with pytest.raises(RunError, match=expected):
        run.load(SPEC)
    with pytest.raises(RunError, match=expected):
        list(run.cells())


def test_a_damaged_run_json_asks_for_another_folder(tmp_path: Path) -> None:
    """Without it the folder is no run, so that to delete it would not help."""
    folder = Run.open(tmp_path / "run", SETTINGS).folder
    (folder / "run.json").write_text("{")
    with pytest.raises(RunError, match=r"run.json: was damaged .*; give another --out$"):
        Run.open(folder, SETTINGS)


ANSWER = {"id": "r", "predicted": 0, "label": 1, "logprobs": [-1.0, -2.0]}
COUNTS = (
    "tokens_prompted",
    "tokens_computed",
    "tokens_unique",
    "tokens_generated",
    "spanning",
    "unfinished",
    "dropped",
)


def scored(predictions: Any) -> dict[str, Any]:
    """Return the result of a scored cell."""
    amounts = {"flops": 1.5, "prompt_tokens": 9.0, "query_tokens": 3.0}
    return {"predictions": predictions, **dict.fromkeys(COUNTS, 3), **amounts, "notes": []}


@pytest.mark.parametrize(
    ("spec", "result"),
    [
        ({"test": "ab"}, scored([ANSWER] * 2)),
        ({"test": "ab", "items": [4]}, scored([ANSWER] * 3)),
        ({"test": "ab"}, scored([ANSWER] * 4)),
        ({"test": "ab"}, scored([ANSWER, ANSWER, {}])),
        ({"test": "ab"}, scored([ANSWER, ANSWER, 1])),
        ({"test": "ab"}, scored(3)),
        ({"test": "ab"}, scored([])),
        ({"test": "ab"}, {}),
    ],
)
def test_a_cell_with_other_predictions_is_damaged(tmp_path: Path, spec: dict[str, Any], result: dict[str, Any]) -> None:
    """Whole cells have a prediction per test record, parts of cells one per item."""
    run = Run.open(tmp_path / "run", SETTINGS, {"ab": 3})
    right = {"test": "ab", "k": 1}
    run.save(right, scored([ANSWER] * 3))
    assert run.load(right)
    run.save(spec, result)
    with pytest.raises(RunError, match="was damaged or edited from outside"):
        run.load(spec)
    with pytest.raises(RunError, match="was damaged or edited from outside"):
        list(run.cells())


@pytest.mark.parametrize(("kind", "name"), [("cells", "result"), ("measures", "measure")])
def test_another_number_in_a_cell_is_damage(tmp_path: Path, kind: str, name: str) -> None:
    """A cell and its measure bear a hash of what they hold, so that no changed digit passes for a figure."""
    run = Run.open(tmp_path / "run", SETTINGS, {"ab": 3})
    spec = {"test": "ab"}
    run.save(spec, scored([ANSWER] * 3), {"seconds": 1.5, "peak_memory_bytes": 3})
    path = run.folder / kind / f"{cell_key(spec)}.json"
    path.write_text(path.read_text().replace("1.5", "1.6"))
    with pytest.raises(RunError, match=rf"{path}: was damaged .*{name} has another sha256"):
        run.load(spec) if kind == "cells" else run.load_measure(spec)


def test_a_cell_from_before_its_hash_was_kept_is_read(tmp_path: Path) -> None:
    """Runs that were made before cells bore a hash go on."""
    run = Run.open(tmp_path / "run", SETTINGS)
    run.save(SPEC, {"x": 1})
    path = run.folder / "cells" / f"{cell_key(SPEC)}.json"
    path.write_text(json.dumps({"spec": SPEC, "result": {"x": 1}}))
    assert run.load(SPEC) == {"x": 1}


def test_a_result_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    """NaN is no result, and no file is left of it."""
    run = Run.open(tmp_path / "run", SETTINGS)
    with pytest.raises(RunError, match=r"a number is NaN or infinite.*try --dtype float32"):
        run.save(SPEC, {"logprob": float("nan")})
    assert list(run.cells()) == []


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no room the error says so in one line, and the old file stays as it was."""
    path = tmp_path / "cell.json"
    write_whole(path, b"old")

    def no_room(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(RunError) as caught:
        write_whole(path, b"new")
    assert str(caught.value) == (
        f"{path}: cannot be written (No space left on device); make room there or give another --out"
    )
    assert files(tmp_path) == {"cell.json": b"old"}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device that is always full")
def test_a_device_without_room(tmp_path: Path) -> None:
    """The real thing: a write that the system refuses for want of room."""

    def write() -> None:
        with open("/dev/full", "wb") as full, new_file(tmp_path / "cell.json") as file:
            os.dup2(full.fileno(), file.fileno())
            file.write(b"x" * 100_000)

    with pytest.raises(RunError, match=r"cannot be written \(No space left on device\)"):
        write()
    assert files(tmp_path) == {}


def leave(folder: Path, host: str = "", age: float = 0.0) -> Path:
    """Leave what a writer that was killed leaves of a cell; `host` is another machine."""
    folder.mkdir(exist_ok=True)
    place = make_place(folder / "cell.json")
    (place.folder / MADE).mkdir()
    (place.folder / MADE / "cell.json").write_text("half")
    place.close()
    path = place.folder.rename(str(place.folder).replace(host_mark(), host)) if host else place.folder
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def test_leftovers_of_the_dead_are_removed(tmp_path: Path) -> None:
    """What a killed writer left goes, what may still be written and what somebody else has put there stays."""
    run, day = Run.open(tmp_path / "run", SETTINGS), 24 * 3600.0
    run.save(SPEC, {})
    cells = run.folder / "cells"
    gone = [leave(run.folder), leave(cells), leave(run.folder / "measures"), leave(cells, "0a0a0a0a", 30 * day)]
    alive = make_place(cells / "cell.json")
    kept = [alive.folder, leave(cells, "0b0b0b0b", day), cells / f".cell.json.{host_mark()}.1.0.tmp"]
    kept[-1].write_text("mine")
    Run.open(run.folder, SETTINGS)
    alive.close()
    assert [path.exists() for path in gone] == [False] * 4
    assert [path.exists() for path in kept] == [True] * 3
    assert run.load(SPEC) == {}


def test_a_run_killed_before_its_first_file_starts_again(tmp_path: Path) -> None:
    """A folder with nothing but a leftover is no obstacle."""
    leave(tmp_path)
    Run.open(tmp_path, SETTINGS)
    assert list(files(tmp_path)) == ["run.json"]


def test_an_adapter_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """The adapter's folder appears when training has ended, and not after an error."""
    run = Run.open(tmp_path / "run", SETTINGS)

    def fail() -> None:
        with run.new_adapter(SPEC) as folder:
            folder.mkdir()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert files(run.folder / "adapters") == {}
    with run.new_adapter(SPEC) as folder:
        assert not folder.exists()
        folder.mkdir()
        (folder / "weights").write_text("1")
        assert not run.adapter_folder(SPEC).exists()
    assert files(run.folder / "adapters") == {f"{cell_key(SPEC)}/weights": b"1"}


def test_the_first_of_two_adapters_stays(tmp_path: Path) -> None:
    """Of two processes that train the same adapter, the second finds it finished."""
    run = Run.open(tmp_path / "run", SETTINGS)
    with run.new_adapter(SPEC) as slow:
        with run.new_adapter(SPEC) as fast:
            fast.mkdir()
            (fast / "weights").write_text("fast")
        slow.mkdir()
        (slow / "weights").write_text("slow")
    assert files(run.folder / "adapters") == {f"{cell_key(SPEC)}/weights": b"fast"}


def test_a_training_finds_its_state_again(tmp_path: Path) -> None:
    """What an unfinished training kept is there next time, for one process at a time; a finished one leaves nothing."""
    run = Run.open(tmp_path / "run", SETTINGS)

    def stop() -> None:
        with run.new_adapter(SPEC) as folder:
            folder.with_name("adapter.part").mkdir()
            folder.mkdir()  # whole, but not moved yet
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    run = Run.open(run.folder, SETTINGS)
    with run.new_adapter(SPEC) as folder:
        assert folder.with_name("adapter.part").is_dir()
        assert not folder.exists()
        with run.new_adapter(SPEC) as other:
            assert not other.with_name("adapter.part").exists()
            other.mkdir()
        folder.mkdir()
    assert [path.name for path in (run.folder / "adapters").iterdir()] == [cell_key(SPEC)]


def test_state_of_an_adapter_that_another_process_made_is_removed(tmp_path: Path) -> None:
    """Opening the run removes it, unless a process is at it."""
    run = Run.open(tmp_path / "run", SETTINGS)
    with run.new_adapter(SPEC) as slow:
        run.adapter_folder(SPEC).mkdir()
        Run.open(run.folder, SETTINGS)
        slow.with_name("adapter.part").mkdir()
        slow.mkdir()
        state = shutil.copytree(slow.parent, tmp_path / "state")
    shutil.copytree(state, slow.parent)
    Run.open(run.folder, SETTINGS)
    assert [path.name for path in (run.folder / "adapters").iterdir()] == [cell_key(SPEC)]


def test_the_default_folder_names_task_and_settings() -> None:
    """The same settings lead to the same folder, others to another."""
    folder = default_folder("reviews", SETTINGS)
    assert folder.parent == Path("runs")
    assert folder.name.startswith("reviews-")
    assert len(folder.name) == len("reviews-") + 8
    assert folder == default_folder("reviews", dict(reversed(SETTINGS.items())))
    assert folder != default_folder("reviews", {**SETTINGS, "seed": 1})


# Fills a run folder with cells; dies by SIGKILL at the given one of its moves on the file system,
# or with half of a file written.
WORK = """
import os, signal, sys
from pathlib import Path
from promptkit.experiments.run_folder import Run

folder, cells, moment = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
moves, sync = iter(range(moment)), os.fsync

def move():
    if moment and next(moves, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)

def fsync(file):
    half = os.fstat(file).st_size // 2
    if moment and next(moves, None) is None:
        os.ftruncate(file, half)
        os.kill(os.getpid(), signal.SIGKILL)
    sync(file)

os.fsync = fsync
sys.addaudithook(lambda event, _: move() if event in ("os.mkdir", "os.rename", "os.remove") else None)
run = Run.open(folder, {"seed": 0})
for k in range(cells):
    spec = {"k": k}
    if run.load(spec) is None:
        run.save(spec, {"logprobs": [k / 7] * 500}, measure={"seconds": 0.1})
"""


def work(folder: Path, cells: int, moment: int = 0) -> subprocess.Popen[bytes]:
    """Start a process that fills a run folder, and dies at that moment if it is not 0."""
    arguments = [sys.executable, "-c", WORK, str(folder), str(cells), str(moment)]
    return subprocess.Popen(arguments, env={**os.environ, "PYTHONPATH": str(Path(store.__file__).parents[2])})


def test_killed_at_any_moment_a_run_goes_on(tmp_path: Path) -> None:
    """Killed at its first, second, third ... move and started again, a run ends byte-equal to a whole one."""
    assert work(tmp_path / "whole", 4).wait() == 0
    kills = 0
    while (code := work(tmp_path / "run", 4, moment=kills + 1).wait()) == -signal.SIGKILL:
        kills += 1
        for path in (tmp_path / "run").glob("[!.]*/[!.]*"):
            assert path.read_bytes() == (tmp_path / "whole" / path.relative_to(tmp_path / "run")).read_bytes()
    assert code == 0
    assert kills >= 8
    assert files(tmp_path / "run") == files(tmp_path / "whole")


def test_several_processes_fill_one_run(tmp_path: Path) -> None:
    """Processes that compute the same cells at the same time disturb nothing."""
    processes = [work(tmp_path / "run", 40) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert work(tmp_path / "alone", 40).wait() == 0
    assert files(tmp_path / "run") == files(tmp_path / "alone")


def test_the_documented_examples_hold() -> None:
    """The Python code in docs/runs.md runs, and what it asserts is so."""
    page = (Path(__file__).parents[2] / "docs" / "runs.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block, {})


def test_a_refused_training_removes_nothing_that_is_not_the_runs(tmp_path: Path) -> None:
    """Files that somebody put into a new run's folder or its sources stay, and so does a source that was changed."""
    made = store.Made(SETTINGS, sources={"tasks/a.toml": b"a"})

    def refuse(name: str, content: bytes) -> Path:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        run = Run.plan(folder, made)
        with suppress(RunError), run.new_adapter(SPEC):
            if name:
                (folder / name).write_bytes(content)
            raise RunError("refused")
        return folder

    assert not refuse("", b"").exists()
    for name, content in (("sources/notes.txt", b"mine"), ("notes.txt", b"mine"), ("sources/tasks/a.toml", b"mine")):
        assert (refuse(name, content) / name).read_bytes() == content
