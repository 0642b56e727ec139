"""Start worker processes that end with the process that started them, however that ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait

from promptkit.errors import PromptkitError

#: prctl(2): the signal that a process gets when its parent has died.
_SET_DEATH_SIGNAL = 1


@contextmanager
def worker_pool(count: int) -> Iterator[ProcessPoolExecutor]:
    """Give a pool of `count` processes that end with this one, be it killed, and at an error at once.

    Raises PromptkitError where one of them is killed meanwhile.
    """
    others = {*multiprocessing.active_children()}
    context = multiprocessing.get_context("spawn")
    parent = os.getpid()
    with ProcessPoolExecutor(count, mp_context=context, initializer=end_with_parent, initargs=(parent,)) as pool:
        try:
            yield pool
        except BaseException as error:  # the pool would wait for them to end
            for process in {*multiprocessing.active_children()} - others:
                process.terminate()
            if isinstance(error, BrokenProcessPool):
                raise PromptkitError(
                    "a worker process was killed, as by a machine that is out of memory; finished cells are kept: give "
                    "fewer --workers, and the same command goes on"
                ) from error
            raise


def end_with_parent(parent: int) -> None:
    """Let this process end when `parent`, which started it, is gone.

    Linux sends a signal then. Everywhere a thread waits for the parent's end as well, for a parent that was gone before
    the signal was asked for, and for systems without it.
    """
    if sys.platform == "linux":
        _ask_for_signal()
    threading.Thread(target=_watch, args=(parent,), name="parent watch", daemon=True).start()


def _ask_for_signal() -> None:
    import ctypes

    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)


def _watch(parent: int) -> None:
    started_by = multiprocessing.parent_process()
    if started_by is not None:
        wait([started_by.sentinel])
    elif os.name == "posix":
        _wait_for_another_parent(parent)
    os._exit(1)


def _wait_for_another_parent(parent: int) -> None:
    """Return when another process, as init, has taken this one over."""
    pause = threading.Event()
    while os.getppid() == parent:
        pause.wait(1)
