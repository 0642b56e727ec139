"""Files are written whole or not at all, and never over others."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from click.testing import CliRunner

from promptkit.building.build import iterate_prompts
from promptkit.cli.main import cli
from promptkit.data.tasks import load_task
from promptkit.errors import DataError, InputError, PromptkitError, RunError, TaskError
from promptkit.prompts.prompt import prompt_from_row, prompt_row
from promptkit.storage.files import GROUP_ROWS, check_readable, new_file, new_folder, open_input, read_input, write_rows
from promptkit.storage.rows import number_rows

ROWS: list[dict[str, Any]] = [{"id": str(number), "text": "é\n\u2028", "choices": ["a", "b"]} for number in range(5)]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_rows_come_back_as_they_were(tmp_path: Path, suffix: str) -> None:
    """Both formats keep rows in order, with every character."""
    path = tmp_path / f"new/rows{suffix}"
    assert write_rows(iter(ROWS), path) == 5
    assert [row for _, row in number_rows(path)] == ROWS


def test_parquet_is_written_in_parts(tmp_path: Path) -> None:
    """Rows beyond one group make another row group of the same schema."""
    rows = ({"id": str(number)} for number in range(GROUP_ROWS + 1))
    write_rows(rows, tmp_path / "rows.parquet")
    assert pyarrow.parquet.ParquetFile(tmp_path / "rows.parquet").num_row_groups == 2


@pytest.mark.parametrize(("choices", "label"), [(["a", "b"], 1), ([], "free text")])
def test_labels_may_come_late(tmp_path: Path, choices: list[str], label: int | str) -> None:
    """Where no row of the first group has a label, a later one may have: an index into choices, or a text."""
    rows: list[dict[str, Any]] = [
        {"id": str(number), "choices": choices, "label": None} for number in range(GROUP_ROWS)
    ]
    write_rows([*rows, {"id": "last", "choices": choices, "label": label}], tmp_path / "rows.parquet")
    assert [row["label"] for _, row in number_rows(tmp_path / "rows.parquet")] == [None] * GROUP_ROWS + [label]


def test_mixed_rows_keep_every_column(tmp_path: Path) -> None:
    """Rows that say how to write an answer may follow rows that do not, and empty lists keep their type."""
    plain, cot = (next(iterate_prompts("reviews", f"sentiment/{name}", limit=1)) for name in ("plain", "cot"))
    write_rows(map(prompt_row, [plain, cot]), tmp_path / "rows.parquet")
    read = [prompt_from_row(row) for _, row in number_rows(tmp_path / "rows.parquet")]
    assert read == [plain, cot]
    assert pyarrow.parquet.read_schema(tmp_path / "rows.parquet").field("demonstration_ids").type.value_type == "string"


def test_existing_file_is_kept(tmp_path: Path) -> None:
    """A path that exists is refused and left as it is."""
    path = tmp_path / "rows.jsonl"
    path.write_text("mine")
    with pytest.raises(RunError, match=r"rows.jsonl: exists already; give another --out, or remove it first"):
        write_rows(ROWS, path)
    assert path.read_text() == "mine"


def interrupted(path: Path) -> Iterator[dict[str, Any]]:
    """Yield rows; while they are written, something comes to `path`."""
    yield ROWS[0]
    path.write_text("mine")
    yield ROWS[1]


@pytest.mark.parametrize("links", [True, False])
def test_what_comes_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    """A file that somebody makes while rows are written stays, also where there are no hard links."""
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "rows.jsonl"
    with pytest.raises(RunError, match=r"rows.jsonl: exists already; give another --out"):
        write_rows(interrupted(path), path)
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("rows.jsonl", "mine")]


def no_links(*_: Path) -> None:
    """Do what a file system without hard links does."""
    raise PermissionError(errno.EPERM, "Operation not permitted")


def test_files_are_written_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file system has no hard links, the file has its name all the same, and nothing else is left."""
    monkeypatch.setattr(os, "link", no_links)
    write_rows(ROWS, tmp_path / "rows.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_folder_that_comes_meanwhile_is_kept(tmp_path: Path) -> None:
    """A folder that somebody makes at the same place meanwhile is left as it is, also an empty one."""

    def fill() -> None:
        with new_folder(tmp_path / "set") as folder:
            (folder / "rows").write_text("ours")
            (tmp_path / "set").mkdir()

    with pytest.raises(RunError, match="set: exists already"):
        fill()
    assert [path.name for path in tmp_path.rglob("*")] == ["set"]


def test_a_link_to_nothing_is_kept(tmp_path: Path) -> None:
    """A dangling symbolic link is something that is there."""
    path = tmp_path / "rows.jsonl"
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"rows.jsonl: exists already"):
        write_rows(ROWS, path)
    assert path.is_symlink()


def test_a_cell_may_be_written_twice(tmp_path: Path) -> None:
    """With `replace`, what is there already gives way: several processes may write the same cell."""
    for text in (b"one", b"two"):
        with new_file(tmp_path / "cell", replace=True) as file:
            file.write(text)
    assert (tmp_path / "cell").read_bytes() == b"two"


def test_nothing_is_left_of_a_file_that_broke_off(tmp_path: Path) -> None:
    """After an error on the way there is neither the file nor a piece of it."""

    def broken() -> Iterator[dict[str, Any]]:
        yield ROWS[0]
        raise KeyError("stop")

    with pytest.raises(KeyError):
        write_rows(broken(), tmp_path / "rows.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_new_folders_go_when_nothing_comes_into_them(tmp_path: Path) -> None:
    """After an error, folders that were made for the file are gone, and those that hold something stay."""
    (tmp_path / "there").mkdir()
    path = tmp_path / "there/new/deep/rows.jsonl"

    def broken() -> Iterator[dict[str, Any]]:
        assert path.parent.is_dir()
        yield ROWS[0]
        raise OSError("no room")

    with pytest.raises(RunError, match="no room"):
        write_rows(broken(), path)
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]
    with pytest.raises(RunError, match="no room"):
        write_rows((row for row in broken() if (path.parents[1] / "mine").write_text("mine")), path)
    assert {path.name for path in tmp_path.rglob("*")} == {"there", "new", "mine"}


def test_unknown_ending_and_unwritable_place_are_explained(tmp_path: Path) -> None:
    """What cannot be written is one line with the fix."""
    with pytest.raises(RunError, match=r"cannot write '.xlsx'; allowed: .jsonl, .parquet"):
        write_rows(ROWS, tmp_path / "rows.xlsx")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot be written \(.*\); make room there or give another --out"):
        write_rows(ROWS, tmp_path / "file/rows.jsonl")


def make_pipe(path: Path) -> None:
    """Make a pipe that nobody writes to."""
    os.mkfifo(path)


def make_device(path: Path) -> None:
    """Make a link to a device that never ends."""
    path.symlink_to("/dev/zero")


def make_view(path: Path) -> None:
    """Make a link to what the system makes as it is read: it says that it is a file, and this one waits for events."""
    path.symlink_to("/proc/kmsg")


def make_socket(path: Path) -> None:
    """Make a socket; its name may not be long, so it is bound from inside its folder."""
    before = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(before)


def make_loop(path: Path) -> None:
    """Make a link to itself."""
    path.symlink_to(path.name)


def make_dangling(path: Path) -> None:
    """Make a link to nothing."""
    path.symlink_to("nothing")


ODD = {
    make_pipe: "is a pipe, and a plain file is expected",
    make_device: "is a device, and a plain file is expected",
    make_socket: "is a socket, and a plain file is expected",
    make_view: "is made by the system as it is read, and a plain file is expected",
    make_loop: "is a link that leads nowhere",
    make_dangling: "is a link that leads nowhere",
    Path.mkdir: "Is a directory",
}


@pytest.mark.parametrize("make", ODD)
def test_only_plain_files_are_opened(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """A pipe, a device, a socket, a folder and a link to nowhere are refused at once, by name."""
    path = tmp_path / "odd.json"
    make(path)
    for read in (open_input, read_input, check_readable):
        with pytest.raises(OSError, match=ODD[make]) as caught:
            read(path)
        assert str(path) in str(caught.value)


#: What reads a file that a user names, or that lies in a folder they name: arguments of the command line, FILE for it.
READERS = {
    "rows.jsonl": ["score FILE", "train FILE"],
    "data.csv": ["score reviews --data FILE", "compare reviews --data FILE", "train reviews --data FILE"],
    "data.parquet": ["build reviews --data FILE"],
    "train.jsonl": ["build reviews --as pairs --data FOLDER"],
    "task.toml": ["show FILE", "lint FILE", "build FILE"],
    "preset.toml": ["study reviews --preset FILE", "study FILE"],
    "plain.jinja": ["show reviews --template FILE"],
    "prices.toml": ["compare reviews --prices FILE"],
    "set.manifest.json": ["build FILE"],
    "run.json": ["report FOLDER"],
    "tokenizer_config.json": ["show reviews --model FOLDER"],
    "adapter_config.json": ["merge FOLDER --out OUT", "show reviews --model FOLDER"],
    "promptkit.json": ["predict FOLDER/../data.jsonl --adapter FOLDER"],
    "new.jsonl": ["predict FILE --adapter FOLDER"],
}


@pytest.mark.parametrize("make", [make_pipe, make_device, make_loop])
@pytest.mark.parametrize(("name", "line"), [(name, line) for name, lines in READERS.items() for line in lines])
def test_every_verb_refuses_what_is_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], name: str, line: str
) -> None:
    """Whatever a verb reads, something that is no plain file in its place is an error at once."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "folder"
    folder.mkdir()
    make(folder / name)
    words = line.replace("FILE", str(folder / name)).replace("FOLDER", str(folder)).replace("OUT", "out").split()
    result = CliRunner().invoke(cli, words)
    assert isinstance(result.exception, PromptkitError | OSError | SystemExit), result.output
    assert result.exit_code
    assert name in f"{result.exception}{result.output}" or folder.name in f"{result.exception}{result.output}"


def test_what_is_read_whole_has_a_limit(tmp_path: Path) -> None:
    """A file that is read whole is refused beyond a size, before it is read."""
    path = tmp_path / "task.toml"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(InputError, match=r"task.toml: has 1,099,511,627,776 bytes; such a file has 67,108,864 at most"):
        read_input(path)
    with pytest.raises(TaskError, match=r"task.toml: has 1,099,511,627,776 bytes; such a file has 4,194,304 at most"):
        load_task(path)


def test_a_line_has_a_limit(tmp_path: Path) -> None:
    """A file of rows without an end of line is refused after the longest line there may be."""
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(DataError, match=r"rows.jsonl:1: this line has 67,108,864 bytes or more; one row a line"):
        list(number_rows(path))
