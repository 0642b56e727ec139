"""The report's folder: only what a report wrote there is ever replaced or removed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from promptkit.errors import RunError
from promptkit.report.report_folder import LIST, check_folder, write_folder


def contents(folder: Path) -> dict[str, bytes]:
    """Return what is in the folder, its list of files left out."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != LIST]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_an_earlier_report_is_replaced(tmp_path: Path) -> None:
    """A second report leaves its own files and none of the first."""
    folder = tmp_path / "report"
    write_folder(folder, {"page.html": b"1", "figures/a.svg": b"1"})
    paths = write_folder(folder, {"page.html": b"2", "figures/b.svg": b"2"})
    assert paths == [folder / "page.html", folder / "figures/b.svg"]
    assert contents(folder) == {"page.html": b"2", "figures/b.svg": b"2"}


def test_what_a_user_put_there_stays(tmp_path: Path) -> None:
    """A file beside the report is kept; one that the report would write is an error, before anything is written."""
    write_folder(tmp_path, {"page.html": b"1"})
    (tmp_path / "notes.txt").write_bytes(b"mine")
    write_folder(tmp_path, {"page.html": b"2"})
    assert contents(tmp_path) == {"page.html": b"2", "notes.txt": b"mine"}
    with pytest.raises(RunError, match=r"notes.txt: was not written by a report, or was changed since; move it"):
        write_folder(tmp_path, {"page.html": b"3", "notes.txt": b"3"})
    assert contents(tmp_path) == {"page.html": b"2", "notes.txt": b"mine"}


def test_what_a_user_changed_stays(tmp_path: Path) -> None:
    """A file of the report that was edited is neither replaced nor removed."""
    write_folder(tmp_path, {"page.html": b"1", "a.svg": b"1"})
    (tmp_path / "a.svg").write_bytes(b"edited")
    for files in ({"page.html": b"2", "a.svg": b"2"}, {"page.html": b"2"}):
        with pytest.raises(RunError, match=r"a.svg: was not written by a report, or was changed since"):
            write_folder(tmp_path, files)
    assert contents(tmp_path) == {"page.html": b"1", "a.svg": b"edited"}


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    """A folder that holds anything and no report is refused, a file too; an empty one is taken."""
    check_folder(tmp_path)
    check_folder(tmp_path / "new")
    (tmp_path / "thesis.tex").write_bytes(b"")
    with pytest.raises(RunError, match=r"holds something that no report wrote; give another --out"):
        write_folder(tmp_path, {"page.html": b"1"})
    with pytest.raises(RunError, match=r"thesis.tex: is no folder for a report"):
        check_folder(tmp_path / "thesis.tex")
    assert set(contents(tmp_path)) == {"thesis.tex"}


def test_a_list_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    """A list of files from elsewhere makes the report neither replace nor remove what is outside."""
    outside, folder = tmp_path / "precious", tmp_path / "report"
    outside.write_bytes(b"1")
    write_folder(folder, {"page.html": b"1"})
    listed = json.loads((folder / LIST).read_text())
    listed["files"]["../precious"] = listed["files"]["page.html"]
    (folder / LIST).write_text(json.dumps(listed))
    with pytest.raises(RunError, match=r"holds something that no report wrote"):
        write_folder(folder, {"page.html": b"2"})
    assert outside.read_bytes() == b"1"


def test_links_are_not_followed(tmp_path: Path) -> None:
    """A link in a file's place is not written through."""
    outside, folder = tmp_path / "precious", tmp_path / "report"
    outside.write_bytes(b"1")
    write_folder(folder, {"page.html": b"1"})
    (folder / "page.html").unlink()
    (folder / "page.html").symlink_to(outside)
    with pytest.raises(RunError, match=r"page.html: was not written by a report|holds something"):
        write_folder(folder, {"page.html": b"2"})
    assert outside.read_bytes() == b"1"


def test_a_report_that_was_stopped_can_be_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after some of its files, the next one finds nothing strange."""
    from promptkit.report import report_folder as module

    write_folder(tmp_path, {"a": b"1", "b": b"1", "c": b"1"})
    real = module.write_whole

    def stopping(path: Path, content: bytes) -> None:
        if path.name == "b":
            raise KeyboardInterrupt
        real(path, content)

    monkeypatch.setattr(module, "write_whole", stopping)
    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path, {"a": b"2", "b": b"2"})
    monkeypatch.undo()
    assert contents(tmp_path) == {"a": b"2", "b": b"1", "c": b"1"}
    write_folder(tmp_path, {"a": b"3", "b": b"3"})
    assert contents(tmp_path) == {"a": b"3", "b": b"3"}
