"""Lock an open file for as long as its process lives."""

from __future__ import annotations

from contextlib import suppress
from typing import IO


def take_lock(file: IO[bytes]) -> bool:
    """Return whether no other process holds this file; it is held from now on until it is closed.

    On Windows nothing is held, and the answer is always yes.
    """
    with suppress(ImportError):  # Windows has no fcntl
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # held by another, or on a file system without locks
            return False
    return True


def wait_for_lock(file: IO[bytes]) -> None:
    """Hold a new file until it is closed, where the file system has locks; whoever looked at it lets go at once."""
    with suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)
