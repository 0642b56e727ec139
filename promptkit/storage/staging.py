"""Make outputs in hidden folders that say whose they are; remove of them what promptkit wrote, and nothing else.

    .labels.jsonl.1a2b3c4d.4711.0.tmp/      of this output, machine and process
      made-by-promptkit.json                what it is; locked while its process lives
      publish.json                          once all is made: what is to get its name beside this folder
      made/                                 the output

A folder that only looks like this one, or holds anything that promptkit does not write, is left as it is.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import platform
import re
import stat
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from promptkit.errors import PromptkitWarning, RunError
from promptkit.storage.lock import take_lock, wait_for_lock
from promptkit.storage.parsing import parse_json

#: The file that says that promptkit made a folder.
MARK = "made-by-promptkit.json"
MADE = "made"
_JOURNAL = "publish.json"
_KIND = "unfinished output"
_SERIAL = itertools.count()
_WEEK = 7 * 24 * 60 * 60.0
#: Bytes of a name beyond which a hidden folder has its hash instead: a name may have 255.
_LONG_NAME = 120
_HIDDEN = re.compile(r"\.(?P<name>.+)\.(?P<host>[0-9a-f]{8})\.(?P<process>\d+)\.\d+\.tmp", re.S)
#: Files that verbs write into a folder, beside those that the user names.
_FILES = (
    r"(README\.md|[^/]+-\d{5,}-of-\d{5,}\.(jsonl|parquet|arrow|safetensors)|part-\d+|spool\.jsonl|rows\.arrow"
    r"|[^/]+\.manifest\.json|state\.json|dataset_info\.json|model\.safetensors(\.index\.json)?|adapter_model\.safetensors"
    r"|adapter_config\.json|config\.json|generation_config\.json|promptkit\.json|tokenizer\.(json|model)"
    r"|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json|vocab\.(json|txt|bpe)|merges\.txt|bpe\.codes"
    r"|(spiece|sentencepiece\.bpe)\.model|(source|target)\.spm|chat_template\.(jinja|json)|[^/]+\.tiktoken"
    r"|(additional_chat_templates/[^/]+\.jinja)|(tokenization|configuration|modeling)_[^/]+\.py)"
)
_INNER = r"([^/]+/)?((spool|additional_chat_templates)/)?"
#: What a folder may hold that an output is made in, beside the output itself.
_OUTPUT = re.compile(rf"publish\.json(\.new)?|{MADE}/({_INNER}|{_INNER}{_FILES})")
_CHECKPOINT = (
    r"(tmp-)?checkpoint-\d+/(README\.md|adapter_config\.json|adapter_model\.safetensors|(optimizer|scheduler|scaler)\.(pt|bin)"
    r"|rng_state(_\d+)?\.pth|trainer_state\.json|training_args\.bin|promptkit_course\.json|promptkit_best\.safetensors)?"
)
_STATE = rf"(training\.json|{_CHECKPOINT})"
#: What else a folder may be made for: the state of a training, an adapter of a run, rows that are being predicted.
TRAINING, ADAPTER, ROWS = "a training", "an adapter of a run", "rows"
#: What these hold, as paths in them, with a slash behind folders.
_HOLDS = {
    TRAINING: re.compile(_STATE),
    ADAPTER: re.compile(rf"adapter/{_FILES}?|adapter\.part/{_STATE}?"),
    ROWS: re.compile(r"what\.json|done\.json|rows\.jsonl|index\.jsonl|whole\.[a-z]+"),
}


@dataclass(frozen=True)
class Place:
    """A folder with promptkit's mark that this process has locked, until it is closed or removed."""

    folder: Path
    mark: BinaryIO

    def close(self) -> None:
        """Let others have the folder; what is in it stays."""
        self.mark.close()

    def move(self, path: Path) -> Place:
        """Give the folder another name, which is free."""
        if os.name != "posix":  # Windows moves no folder with an open file
            self.close()
        os.rename(self.folder, path)
        return Place(path, self.mark)

    def clear(self, name: str) -> None:
        """Remove a folder in it; foreign files stay."""
        for path, is_own in list(_list_entries(self.folder, _read_mark(self.folder) or {})):
            if is_own and path.relative_to(self.folder).parts[0] == name:
                _remove_entry(path)

    def remove(self) -> None:
        """Remove the folder, under a hidden name first, so that a kill leaves no half of it; foreign files stay."""
        place = self if _HIDDEN.fullmatch(self.folder.name) else self.move(hidden_path(self.folder))
        for path, is_own in list(_list_entries(place.folder, _read_mark(place.folder) or {})):
            if is_own and path != place.folder / MARK:
                _remove_entry(path)
        if os.name != "posix":
            place.close()
        with suppress(OSError):
            (place.folder / MARK).unlink()
            place.folder.rmdir()
        place.close()


def make_place(path: Path, kind: str = _KIND) -> Place:
    """Return a new hidden folder beside `path`, marked and locked."""
    while True:
        folder = hidden_path(path)
        try:
            folder.mkdir()
            break
        except FileExistsError:  # of a killed process that had the same number, or somebody's own
            continue
    try:
        mark = open(folder / MARK, "x+b")  # noqa: SIM115 - it is open as long as the place is ours
        wait_for_lock(mark)
        content = {"made by": "promptkit", "kind": kind, "for": path.name, "host": host_mark()}
        mark.write(json.dumps({**content, "inode": folder.stat().st_ino}).encode())
        mark.flush()
    except BaseException:
        with suppress(OSError):
            (folder / MARK).unlink(missing_ok=True)
            folder.rmdir()
        raise
    return Place(folder, mark)


def find_place(folder: Path, kind: str | None = None) -> Place | None:
    """Lock a folder that was made for `kind`; return None while another process has it, or where it is gone by now.

    Raises RunError for a folder that promptkit did not make.
    """
    try:
        mark = _open_plain(folder / MARK)
    except OSError as error:
        raise RunError(f"{folder}: was not made by promptkit (no {MARK})") from error
    if not take_lock(mark) or not is_same(folder / MARK, mark):
        mark.close()
        return None
    if folder.is_symlink() or _read_mark(folder, kind) is None:
        mark.close()
        raise RunError(f"{folder}: was not made by promptkit for {kind or 'anything'} (by its {MARK})")
    return Place(folder, mark)


def enter_place(folder: Path, kind: str, *, called: str, fix: str) -> Place:
    """Lock the folder of an unfinished output, which is `called` so, to go on in it; `fix` ends every error.

    Raises RunError where promptkit did not make it for `kind`, where another process is at it, and where it holds
    anything foreign.
    """
    try:
        place = find_place(folder, kind)
    except RunError as error:
        raise RunError(f"{folder}: exists and holds no unfinished {called}; move it, or {fix}") from error
    if place is None:
        raise RunError(f"{folder}: another process is at this {called}; wait, or {fix}")
    if foreign := find_foreign(folder):
        place.close()
        raise RunError(f"{folder}: holds {foreign!r}, which promptkit did not write; move that, or {fix}")
    return place


def find_foreign(folder: Path) -> str | None:
    """Return the first thing in a marked folder that promptkit did not write there, None where there is none.

    What may be there follows from what it was made for. Links are always foreign.
    """
    for path, is_own in _list_entries(folder, _read_mark(folder) or {}):
        if not is_own:
            return path.relative_to(folder).as_posix()
    return None


def sweep(path: Path) -> None:
    """Clear away what killed processes have left of an output; finish what one had begun to give its names."""
    _sweep(path.parent, _short(path.name))


def sweep_folder(folder: Path) -> None:
    """Clear away what killed processes have left of any output right in this folder."""
    _sweep(folder, None)


def _sweep(folder: Path, name: str | None) -> None:
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.name.endswith(".tmp")]
    except OSError:
        return
    for found in filter(None, map(_HIDDEN.fullmatch, sorted(names))):
        if name in (None, found["name"]):
            with suppress(OSError):  # another process was first
                _settle(folder / found[0], found["host"], int(found["process"]))


def _settle(folder: Path, host: str, process: int) -> None:
    """Clear away one hidden folder, if it is ours and its process is gone; another machine's after a week."""
    status = os.lstat(folder)
    if os.name != "posix" or not stat.S_ISDIR(status.st_mode):
        return
    if host != host_mark() and time.time() - status.st_mtime < _WEEK:
        return
    if not (folder / MARK).exists() or not (folder / MARK).stat().st_size:
        _remove_empty(folder, process)
        return
    try:
        place = find_place(folder)
    except RunError:  # somebody else's
        return
    if place is None:
        return
    try:
        mark = _read_mark(folder) or {}
        if mark.get("inode") != status.st_ino:  # a copy
            return
        if foreign := find_foreign(folder):
            told = f"{folder}: is left of a stopped promptkit and holds {foreign!r}, which promptkit did not write"
            warnings.warn(f"{told}; move that, and remove the folder", PromptkitWarning, stacklevel=2)
            return
        complete(folder)
        place.remove()
    finally:
        place.close()


def _remove_empty(folder: Path, process: int) -> None:
    """Remove a folder whose process was killed before it had written the mark: nothing, or an empty mark, is in it."""
    if is_alive(process):
        return
    if os.listdir(folder) == [MARK]:
        (folder / MARK).unlink()
    folder.rmdir()  # fails where anything else is in it


def is_alive(process: int) -> bool:
    """Whether a process of this machine with this number is alive."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def write_journal(folder: Path, finished: Iterable[Path]) -> None:
    """Note what of a place is to get its name beside it; from here on a kill does not stop it, see `complete`."""
    noted = {path.name: path.lstat().st_ino for path in finished}
    temporary = folder / f"{_JOURNAL}.new"
    with temporary.open("wb") as file:
        file.write(json.dumps(noted).encode())
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(folder / _JOURNAL)


def complete(folder: Path) -> None:
    """Give everything that a place's journal notes its name beside it, or take all of it back where one is taken."""
    noted = _list_noted(folder)
    there = [(_inode(source), _inode(path), inode) for source, path, inode in noted]
    if any(found not in (None, inode) for _, found, inode in there):
        take_back(folder)
    elif not any(source is None and found is None for source, found, _ in there):
        for source, path, _ in noted:
            if _inode(source) is not None:
                give_name(source, path)


def take_back(folder: Path) -> None:
    """Take what was given its name back into a place, and forget that it was to have one."""
    for source, path, inode in _list_noted(folder):
        if _inode(path) == inode and _inode(source) is None:
            path.rename(source)
        elif _inode(path) == inode:
            path.unlink()
    (folder / _JOURNAL).unlink(missing_ok=True)


def _list_noted(folder: Path) -> list[tuple[Path, Path, int]]:
    """Return where each thing that a journal notes was made, its name, and its number in the file system."""
    noted = _read_journal(folder)
    return [(folder / MADE / name, folder.parent / name, inode) for name, inode in noted.items()]


def _read_journal(folder: Path) -> dict[str, int]:
    """Return the names that a journal notes, none where there is no journal or it is not one of ours."""
    try:
        noted = parse_json((folder / _JOURNAL).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    is_ours = isinstance(noted, dict) and all(name not in ("", "..", ".") and "/" not in name for name in noted)
    return noted if is_ours else {}


def give_name(finished: Path, path: Path) -> None:
    """Move a file or folder to a name that is free; raises FileExistsError where it is not.

    A file gets it as a link, which fails where the name is taken. For folders, and where there are no links, the
    name is looked at right before.
    """
    if not finished.is_dir():
        try:
            if _inode(path) != _inode(finished):
                os.link(finished, path)
            finished.unlink()
            return
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    finished.rename(path)


#: How a file system says that it has no hard links.
_NO_LINKS = {errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK}


def _inode(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except FileNotFoundError:
        return None


def hidden_path(path: Path) -> Path:
    """Return a name beside `path` that no other writer uses and that says who writes it."""
    return path.with_name(f".{_short(path.name)}.{host_mark()}.{os.getpid()}.{next(_SERIAL)}.tmp")


def is_hidden(name: str) -> bool:
    """Whether a name is one that `hidden_path` gives."""
    return _HIDDEN.fullmatch(name) is not None


def _short(name: str) -> str:
    encoded = os.fsencode(name)
    return name if len(encoded) <= _LONG_NAME else hashlib.sha256(encoded).hexdigest()[:32]


def host_mark() -> str:
    """Return a mark of this machine that does not tell its name."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def is_same(path: Path, file: BinaryIO) -> bool:
    """Whether the open file is still the one at `path`: another process may have ended and removed it."""
    try:
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False


def _open_plain(path: Path) -> BinaryIO:
    """Open a plain file for its lock; a link, or something else, is an OSError."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise OSError(errno.EINVAL, "is no plain file", str(path))
    return open(path, "r+b")


def _read_mark(folder: Path, kind: str | None = None) -> dict[str, Any] | None:
    """Return what the mark of a folder says, None where it is not one that `make_place` wrote for this kind."""
    try:
        with _open_plain(folder / MARK) as file:
            found = parse_json(file.read(10_000))
    except (OSError, ValueError):
        return None
    names = {"made by", "kind", "for", "host", "inode"}
    if not isinstance(found, dict) or found.keys() != names or found["made by"] != "promptkit":
        return None
    return found if kind in (None, found["kind"]) else None


def _list_entries(folder: Path, mark: Mapping[str, Any]) -> Iterator[tuple[Path, bool]]:
    """Yield all that is below a marked folder, what is in folders first, and whether promptkit may have written it."""
    for path in sorted(folder.iterdir()):
        yield from _list_entry(folder, path, mark)


def _list_entry(top: Path, path: Path, mark: Mapping[str, Any]) -> Iterator[tuple[Path, bool]]:
    relative = path.relative_to(top).as_posix()
    if path.is_symlink() or not path.is_dir():
        own = not path.is_symlink() and (relative == MARK or _may_be(mark, relative))
        yield path, own
        return
    inner = _read_mark(path)
    if inner:  # an output that is made inside this one
        yield from _list_entries(path, inner)
        yield path, is_hidden(path.name) or _may_be(mark, f"{relative}/")
        return
    for each in sorted(path.iterdir()):
        yield from _list_entry(top, each, mark)
    empty = is_hidden(path.name) and not any(path.iterdir())  # a kill came before its mark
    yield path, empty or _may_be(mark, f"{relative}/")


def _may_be(mark: Mapping[str, Any], relative: str) -> bool:
    """Whether promptkit writes this path, with a slash behind folders, into a folder with such a mark."""
    pattern = _HOLDS.get(str(mark.get("kind")))
    if pattern is not None:
        return pattern.fullmatch(relative) is not None
    name = re.escape(str(mark.get("for", "")))
    return _OUTPUT.fullmatch(relative) is not None or re.fullmatch(f"{MADE}/{name}/?", relative) is not None


def _remove_entry(path: Path) -> None:
    with suppress(OSError):
        if path.is_symlink() or not path.is_dir():
            path.unlink()
        else:
            path.rmdir()
