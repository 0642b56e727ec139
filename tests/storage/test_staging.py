"""What a killed process leaves is cleared away, and nothing that somebody else has put there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from promptkit.errors import PromptkitWarning, RunError
from promptkit.storage.files import check_free, new_file, new_folder, stage
from promptkit.storage.staging import MADE, MARK, TRAINING, find_foreign, find_place, make_place, sweep, write_journal


def leave(path: Path, **contents: str) -> Path:
    """Leave what a killed writer of `path` leaves: its hidden folder with what was made so far."""
    place = make_place(path)
    (place.folder / MADE).mkdir()
    for name, content in contents.items():
        (place.folder / MADE / name.replace("__", ".")).write_text(content)
    place.close()
    return place.folder


def names(folder: Path) -> list[str]:
    """Return the names in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_writer_left_goes_with_the_next(tmp_path: Path) -> None:
    """The next writer of the same output removes it; that of another output leaves it."""
    out = tmp_path / "rows.jsonl"
    leave(out, rows__jsonl="half")
    with new_file(tmp_path / "other.jsonl") as file:
        file.write(b"1")
    assert len(names(tmp_path)) == 2
    check_free(out)
    assert names(tmp_path) == ["other.jsonl"]


def test_a_writer_that_is_alive_is_left_alone(tmp_path: Path) -> None:
    """Its folder is locked, in this process as in another."""
    with stage(tmp_path / "rows.jsonl") as place:
        check_free(tmp_path / "rows.jsonl")
        assert place.folder.is_dir()
    assert names(tmp_path) == []


def test_folders_that_look_alike_stay(tmp_path: Path) -> None:
    """A folder or file of the right name without the mark, with a copied mark or a foreign one, is somebody's own."""
    out = tmp_path / "rows.jsonl"
    real = leave(out, rows__jsonl="half")
    unmarked = real.with_name(real.name.replace(f".{os.getpid()}.", ".1."))
    shutil.copytree(real, unmarked)
    (unmarked / MARK).unlink()
    copied = real.with_name(real.name.replace(f".{os.getpid()}.", ".2."))
    shutil.copytree(real, copied)
    strange = real.with_name(real.name.replace(f".{os.getpid()}.", ".3."))
    shutil.copytree(real, strange)
    (strange / MARK).write_text('{"made by": "me"}')
    file = real.with_name(real.name.replace(f".{os.getpid()}.", ".4."))
    file.write_text("mine")
    link = real.with_name(real.name.replace(f".{os.getpid()}.", ".5."))
    link.symlink_to(copied)
    kept = {path.name for path in (unmarked, copied, strange, file, link)}
    check_free(out)
    assert set(names(tmp_path)) == kept
    assert all((path / MADE / "rows.jsonl").read_text() == "half" for path in (unmarked, copied, strange))


@pytest.mark.parametrize("where", [".", MADE])
@pytest.mark.parametrize("link", [False, True])
def test_a_foreign_file_keeps_all_of_it(tmp_path: Path, where: str, link: bool) -> None:
    """What somebody has put into a leftover stays with all that is there, and is told of."""
    folder = leave(tmp_path / "rows.jsonl", rows__jsonl="half")
    mine = folder / where / "thesis.tex"
    mine.symlink_to("/etc/hostname") if link else mine.write_text("mine")
    with pytest.warns(PromptkitWarning, match=r"holds '(made/)?thesis.tex', which promptkit did not write; move that"):
        check_free(tmp_path / "rows.jsonl")
    assert os.path.lexists(mine)
    assert (folder / MADE / "rows.jsonl").read_text() == "half"
    mine.unlink()
    check_free(tmp_path / "rows.jsonl")
    assert names(tmp_path) == []


@pytest.mark.parametrize("published", [0, 1, 2])
def test_what_was_begun_to_be_published_is_finished(tmp_path: Path, published: int) -> None:
    """A kill between two names of one output: the next look at it gives the rest their names."""
    folder = leave(tmp_path / "rows.jsonl", rows__jsonl="rows", rows__manifest__json="manifest")
    made = [folder / MADE / name for name in ("rows.jsonl", "rows.manifest.json")]
    write_journal(folder, made)
    for path in made[:published]:
        os.link(path, tmp_path / path.name)  # killed before the old name was gone
    with pytest.raises(RunError, match=r"rows.jsonl: exists already"):
        check_free(tmp_path / "rows.jsonl")
    assert names(tmp_path) == ["rows.jsonl", "rows.manifest.json"]
    assert (tmp_path / "rows.manifest.json").read_text() == "manifest"


def test_what_somebody_took_meanwhile_is_not_mixed(tmp_path: Path) -> None:
    """Where one of the names is somebody else's by then, the other is taken back."""
    folder = leave(tmp_path / "rows.jsonl", rows__jsonl="rows", rows__manifest__json="manifest")
    made = [folder / MADE / name for name in ("rows.jsonl", "rows.manifest.json")]
    write_journal(folder, made)
    made[0].rename(tmp_path / "rows.jsonl")
    (tmp_path / "rows.manifest.json").write_text("mine")
    check_free(tmp_path / "rows.jsonl")
    assert names(tmp_path) == ["rows.manifest.json"]
    assert (tmp_path / "rows.manifest.json").read_text() == "mine"


def test_rows_that_somebody_removed_do_not_come_back(tmp_path: Path) -> None:
    """Where what was published is gone by now, the rest of it is not published either."""
    folder = leave(tmp_path / "rows.jsonl", rows__jsonl="rows", rows__manifest__json="manifest")
    made = [folder / MADE / name for name in ("rows.jsonl", "rows.manifest.json")]
    write_journal(folder, made)
    made[0].unlink()
    check_free(tmp_path / "rows.jsonl")
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["../../mine", "/etc/mine", ""])
def test_a_journal_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    """Names with folders in them are none that promptkit notes."""
    folder = leave(tmp_path / "rows.jsonl")
    (folder / "publish.json").write_text(json.dumps({name: 1}))
    sweep(tmp_path / "rows.jsonl")
    assert names(tmp_path) == []


@pytest.mark.parametrize("content", ["[" * 100_000, "{", "[1]", "1"])
def test_a_journal_that_is_none_notes_nothing(tmp_path: Path, content: str) -> None:
    """What is in its place, however deeply nested, is cleared away with the rest."""
    folder = leave(tmp_path / "rows.jsonl")
    (folder / "publish.json").write_text(content)
    sweep(tmp_path / "rows.jsonl")
    assert names(tmp_path) == []


def test_a_kill_before_the_mark_leaves_nothing(tmp_path: Path) -> None:
    """An empty folder, or one with an empty mark, goes when its process is dead."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    for number, content in enumerate([None, ""]):
        place = make_place(tmp_path / "rows.jsonl")
        place.close()
        folder = place.folder.rename(
            str(place.folder).replace(f".{os.getpid()}.", f".{process.pid}.").replace(".tmp", f"{number}.tmp")
        )
        (folder / MARK).unlink() if content is None else (folder / MARK).write_text(content)
    check_free(tmp_path / "rows.jsonl")
    assert names(tmp_path) == []


def test_a_folder_is_cleared_away_whatever_it_holds_of_ours(tmp_path: Path) -> None:
    """Models, adapters, shards and outputs inside of outputs are promptkit's own."""
    place = make_place(tmp_path / "set")
    inner = place.folder / MADE / "set" / "spool"
    inner.mkdir(parents=True)
    (inner / "rows.arrow").write_text("")
    for name in (
        "model.safetensors",
        "model-00001-of-00002.safetensors",
        "config.json",
        "train-00000-of-00009.parquet",
    ):
        (place.folder / MADE / "set" / name).write_text("")
    nested = make_place(place.folder / MADE / "x.jsonl")
    (nested.folder / MADE).mkdir()
    (nested.folder / MADE / "x.jsonl").write_text("")
    nested.close()
    assert find_foreign(place.folder) is None
    place.close()
    check_free(tmp_path / "set")
    assert names(tmp_path) == []


def test_long_names_have_room_for_the_mark(tmp_path: Path) -> None:
    """A name that a file may have is one that an output may have; beyond that it is one line."""
    out = tmp_path / f"{'n' * 249}.jsonl"
    leave(out)
    with new_file(out) as file:
        file.write(b"1")
    out.unlink()
    check_free(out)
    assert names(tmp_path) == []
    with pytest.raises(RunError, match=r"cannot be written \(File name too long\)"):
        check_free(tmp_path / ("n" * 256))


def test_a_place_is_found_again_for_what_it_was_made(tmp_path: Path) -> None:
    """For one process at a time, and not for anything else."""
    place = make_place(tmp_path / "a.part", TRAINING).move(tmp_path / "a.part")
    assert find_place(place.folder, TRAINING) is None
    place.close()
    with pytest.raises(RunError, match=r"a.part: was not made by promptkit for rows"):
        find_place(place.folder, "rows")
    again = find_place(place.folder, TRAINING)
    assert again
    again.remove()
    assert names(tmp_path) == []


def test_folders_are_made_in_one_step(tmp_path: Path) -> None:
    """A new folder appears whole."""
    with new_folder(tmp_path / "model") as folder:
        (folder / "anything").write_text("1")
        assert not (tmp_path / "model").exists()
    assert names(tmp_path) == ["model"]
