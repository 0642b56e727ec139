"""Progress: bars on a terminal after two seconds, rare lines elsewhere."""

from __future__ import annotations

import io

from rich.console import Console

from promptkit.report.progress import Bars


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the seconds."""
        return self.now


def terminal() -> tuple[Console, io.StringIO]:
    """Return a console that believes it is a terminal, and what is written to it."""
    stream = io.StringIO()
    return Console(file=stream, force_terminal=True, width=80), stream


def pipe() -> tuple[Console, io.StringIO]:
    """Return a console that writes to a file."""
    stream = io.StringIO()
    return Console(file=stream, force_terminal=False, width=40), stream


def test_what_is_done_soon_has_no_bar() -> None:
    """Work of less than two seconds shows nothing."""
    console, stream = terminal()
    clock = Clock()
    with Bars(console, clock=clock) as bars:
        report = bars.track("scoring")
        for done in range(11):
            clock.now += 0.1
            report(done, 10)
    assert "scoring" not in stream.getvalue()


def test_what_takes_longer_has_a_bar_with_time_left() -> None:
    """After two seconds there is a bar with its name as it is, its counts and the time left."""
    console, stream = terminal()
    clock = Clock()
    with Bars(console, clock=clock) as bars:
        report = bars.track("few-shot [k=4]")
        for done in range(1, 5):
            clock.now += 1.0
            report(done, 10)
        bars._progress.refresh()
    assert "few-shot [k=4]" in stream.getvalue()
    assert "40%" in stream.getvalue()
    assert ":" in stream.getvalue().split("4/10")[-1]


def test_a_finished_bar_goes() -> None:
    """A piece of work that is done makes room for the next, also where the same name comes again."""
    console, _ = terminal()
    clock = Clock()
    with Bars(console, clock=clock) as bars:
        report = bars.track("scoring")
        for done in (1, 9, 10):
            clock.now += 3.0
            report(done, 10)
        assert bars._progress.tasks == []


def test_a_file_gets_a_line_in_ten_seconds() -> None:
    """Where stderr is no terminal, lines are plain, whole and rare, and say what is left."""
    console, stream = pipe()
    clock = Clock()
    with Bars(console, clock=clock) as bars:
        report = bars.track("a name [red] that is longer than forty columns")
        for done in range(1, 101):
            clock.now += 0.25
            report(done, 100)
    assert stream.getvalue() == (
        "a name [red] that is longer than forty columns: 40 of 100, 15.0 s left\n"
        "a name [red] that is longer than forty columns: 80 of 100, 5.0 s left\n"
    )


def test_the_time_left_is_by_what_this_run_does() -> None:
    """What was done before, by a run that was stopped, took this one no time."""
    console, stream = pipe()
    clock = Clock()
    with Bars(console, clock=clock) as bars:
        report = bars.track("training")
        for done in range(901, 950):
            clock.now += 1.0
            report(done, 1000)
    assert stream.getvalue().splitlines()[0] == "training: 910 of 1,000, 1.5 min left"


def test_progress_goes_to_stderr(capsys: object) -> None:
    """By default nothing is written to stdout."""
    assert Bars()._console.stderr
