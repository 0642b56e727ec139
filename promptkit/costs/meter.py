"""Measure the seconds and the peak memory of a `with` block."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Meter:
    """Measures a `with` block: `seconds` of wall clock and `peak_memory_bytes`, set when it ends.

    On "cuda" devices memory is what torch allocated there. Elsewhere it is the resident memory of
    the whole process, Python and weights included: on Linux its peak within the block, where the
    kernel lets a process reset its own peak; otherwise the peak since the process started.
    Meters may be nested, in one thread.
    """

    _running: ClassVar[list[Meter]] = []

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.seconds = 0.0
        self.peak_memory_bytes = 0

    def __enter__(self) -> Self:
        # An inner meter resets the peak, so the outer ones first keep what they have seen.
        for outer in Meter._running:
            outer._keep_peak()
        _reset_peak(self.device)
        Meter._running.append(self)
        self._start = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.device.startswith("cuda"):
            _torch().cuda.synchronize(self.device)
        self.seconds = time.perf_counter() - self._start
        for meter in Meter._running:
            meter._keep_peak()
        Meter._running.remove(self)

    def _keep_peak(self) -> None:
        self.peak_memory_bytes = max(self.peak_memory_bytes, _peak_memory(self.device))


def _reset_peak(device: str) -> None:
    if device.startswith("cuda"):
        _torch().cuda.reset_peak_memory_stats(device)
        return
    try:
        _CLEAR.write_text("5")  # resets VmHWM; see proc(5)
    except OSError:
        return  # no /proc here, or a container that forbids it: the peak is the process's own


def _peak_memory(device: str) -> int:
    """Return bytes."""
    if device.startswith("cuda"):
        return int(_torch().cuda.max_memory_allocated(device))
    try:
        status = _STATUS.read_text()
    except OSError:
        return _peak_since_start()
    kilobytes = status.partition("VmHWM:")[2].split(maxsplit=1)
    return int(kilobytes[0]) * 1024 if kilobytes else _peak_since_start()


def _peak_since_start() -> int:
    """Return the bytes the process has held at most; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _torch() -> Any:
    import torch

    return torch
