"""Say where paths lead in the end, and how to show them."""

from __future__ import annotations

import os
from pathlib import Path


def real_path(path: str | Path) -> Path:
    """Return where a path leads in the end; one that leads to itself, or nowhere, stays as it is."""
    return Path(os.path.realpath(path))


def lies_in(path: str | Path, folder: str | Path) -> bool:
    """Whether a path leads to a place in a folder, or to the folder itself, in the end: behind all links and `..`."""
    return real_path(path).is_relative_to(real_path(folder))


def display_path(path: Path) -> str:
    """Return `path` as a user would type it: relative to the working directory where it lies below it."""
    try:
        return str(real_path(path).relative_to(real_path(Path.cwd())))
    except ValueError:
        return str(path)
