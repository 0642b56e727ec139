"""Show progress bars with the time that is left, on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from promptkit.report.terminal import make_console, make_visible
from promptkit.report.units import SECONDS, quantity

Report = Callable[[int, int], None]  # called with (done, total)

SHOWN_AFTER = 2.0  # seconds; what is done sooner needs no bar
LINE_EVERY = 10.0  # seconds between lines where stderr is no terminal


class Bars:
    """Progress bars in a `with` block; each `track(name)` is a callable for a `progress=` argument.

    On a terminal there is one bar per piece of work, shown once it has taken two seconds and gone
    when it is done. Elsewhere (a file, a pipe) at most one plain line in ten seconds is written.
    """

    def __init__(self, console: Console | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console or make_console(stderr=True)
        self._clock = clock
        self._last_line = clock()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self._console,
            speed_estimate_period=600,  # of parts as different as a training and a score, not of the last half minute
            transient=True,
            disable=not self._console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def track(self, name: str) -> Report:
        """Return a callable to be told (done, total) as often as suits.

        What is done at the first call may be an earlier run's: the time left goes by what is done after it.
        """
        started, name = self._clock(), make_visible(name)
        bar: TaskID | None = None
        first: tuple[int, float] | None = None

        def report(done: int, total: int) -> None:
            nonlocal bar, first
            now = self._clock()
            first, elapsed = first or (done, now), now - started
            if not self._console.is_terminal:
                self._write_line(name, done, total, done - first[0], now - first[1])
            elif bar is None and done < total and elapsed >= SHOWN_AFTER:
                bar = self._progress.add_task(name, completed=done, total=total)
            elif bar is not None and done < total:
                self._progress.update(bar, completed=done, total=total)
            elif bar is not None:
                self._progress.remove_task(bar)
                bar = None

        return report

    def _write_line(self, name: str, done: int, total: int, gained: int, elapsed: float) -> None:
        now = self._clock()
        if now - self._last_line < LINE_EVERY or done >= total:
            return
        self._last_line = now
        left = f", {quantity(elapsed * (total - done) / gained, SECONDS)} left" if gained > 0 else ""
        self._console.print(f"{name}: {done:,} of {total:,}{left}", markup=False, highlight=False, soft_wrap=True)
