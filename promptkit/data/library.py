"""Find task and template files: in the working directory first, then among those that ship."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from promptkit.storage.paths import real_path

_PACKAGE = Path(__file__).parents[1]
#: The folder that stands for all others while a run is made again, and files in it by the paths they once had.
_KEPT: ContextVar[tuple[Path, Mapping[str, Path]] | None] = ContextVar("kept", default=None)


@contextmanager
def only_from(folder: Path, files: Mapping[str, Path]) -> Iterator[None]:
    """Look tasks and templates up in this folder alone, and those that are named by a path in `files`."""
    token = _KEPT.set((folder, files))
    try:
        yield
    finally:
        _KEPT.reset(token)


def kept_file(name: str) -> Path | None:
    """Return the copy that stands for the file of this path, None where files are read as they are."""
    kept = _KEPT.get()
    return kept[1].get(name) if kept else None


def shipped_folder(kind: str) -> Path:
    """Return the shipped `tasks`, `templates` or `presets` folder: in the wheel, else in the checkout."""
    installed = _PACKAGE / "experiments" / kind if kind == "presets" else _PACKAGE / kind
    return installed if installed.is_dir() else _PACKAGE.parent / kind


def search_folders(kind: str) -> tuple[Path, ...]:
    """Return the folders that hold `kind` ("tasks" or "templates"), nearest first, each once."""
    kept = _KEPT.get()
    folders = (kept[0] / kind,) if kept else (Path.cwd() / kind, shipped_folder(kind))
    found = {real_path(folder): folder for folder in reversed(folders) if folder.is_dir()}
    return tuple(reversed(found.values()))


def find_names(kind: str, suffix: str) -> dict[str, Path]:
    """Return name -> file for every `kind` file; a name in the working directory hides a shipped one.

    Files and folders whose name starts with `_` are parts of others and are left out.
    """
    names: dict[str, Path] = {}
    for folder in search_folders(kind):
        for path in sorted(folder.rglob(f"*{suffix}")):
            relative = path.relative_to(folder)
            if not any(part.startswith(("_", ".")) for part in relative.parts):
                names.setdefault(relative.with_suffix("").as_posix(), path)
    return dict(sorted(names.items()))
