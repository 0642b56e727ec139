"""Define the command line: one verb, one short function; results go to stdout, the rest to stderr."""

from __future__ import annotations

import io
import os
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from promptkit._version import __version__
from promptkit.cli.adapt import merge, predict, train
from promptkit.cli.look import lint, list_, show
from promptkit.cli.measure import compare, report, rerun, score, study
from promptkit.cli.output import echo
from promptkit.cli.write import build
from promptkit.errors import PromptkitError, PromptkitWarning
from promptkit.report.terminal import guard_streams


class _Verbs(click.Group):
    """Says itself what happens where the reader of a pipe has left: click would exit with 1."""

    def invoke(self, ctx: click.Context) -> Any:
        guard_streams()
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderLeftError from error


class _ReaderLeftError(Exception):
    """Nobody reads what is printed any more, as behind `head -1`."""


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, package_name="promptkit")
def cli() -> None:
    """Prompts and training pairs from one template, compared by accuracy, stability and cost."""


def _refuse_empty(ctx: click.Context, option: click.Parameter, given: Any) -> Any:
    """Refuse an empty text, as of a variable that is not set, where it would mean the default or this folder."""
    if given == "":
        raise click.BadParameter("is empty; leave it out for the default", ctx, option)
    return given


for verb in (compare, study, score, train, predict, merge, build, show, lint, report, rerun, list_):
    for option in verb.params:
        if option.name in ("out", "data", "selection", "push") and not option.callback:
            option.callback = _refuse_empty
    cli.add_command(verb)


#: The exit code of a fault in promptkit itself, as in sysexits.h.
_FAULT = 70
#: The characters of the longest line on stderr.
_LONGEST = 2000
#: What a stop leaves of the verbs that can go on.
_KEPT = {
    **dict.fromkeys(("compare", "study", "rerun"), "finished cells of the run are kept"),
    "score": "of a task, finished cells of the run are kept",
    "train": "of a training beyond a minute the last state is kept",
    "predict": "with --out the rows that are done are kept",
}


def main() -> None:
    """Run the command line: exit 0 done, 1 expected error on one line, 2 usage, 70 a fault of promptkit's own."""
    guard_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what a terminal cannot show is shown by its number
    try:
        with _terminable(), warnings.catch_warnings():
            warnings.simplefilter("always", PromptkitWarning)
            warnings.showwarning = _show(warnings.showwarning)
            sys.exit(cli(standalone_mode=False) or 0)  # click returns the code of an Exit, and None after a verb
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _say_stopped()
        sys.exit(128 + signal.SIGINT)
    except _Terminated:
        _say_stopped()
        sys.exit(128 + signal.SIGTERM)
    except _ReaderLeftError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the end
        sys.exit(0)
    except (PromptkitError, OSError) as error:
        _say(str(error))
        sys.exit(1)
    except MemoryError:
        _say("more memory is needed than there is; give --memory, fewer records, or a smaller model")
        sys.exit(1)
    except Exception as error:  # a bug of promptkit's or of a package below it: one line for the user, all in a file
        _say(f"a fault in promptkit ({type(error).__name__}: {error}); {_keep_traceback()}")
        sys.exit(_FAULT)


def _keep_traceback() -> str:
    """Write the traceback of what is being handled to a new file; return where it is, and what to do with it."""
    report = f"promptkit {__version__}, Python {sys.version}\n{sys.argv}\n\n{traceback.format_exc()}"
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="promptkit-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            file.write(report)
    except OSError:
        return "please report it with this line and the command"
    return f"please report it with {file.name}"


def _say(message: str) -> None:
    """Print one line on stderr; of a very long one, its beginning and its end."""
    line = " ".join(message.split())
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} … {line[-_LONGEST // 2 :]}"
    echo(f"promptkit: {line}", err=True)


class _Terminated(SystemExit):
    """SIGTERM as an exception: what must be done at the end of a block is done, and unfinished files go."""


@contextmanager
def _terminable() -> Iterator[None]:
    """Stop in the block on SIGTERM as on Ctrl-C, unless whoever started the process has it ignored."""

    def stop(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one would break off what the first has begun to clear away
        raise _Terminated

    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _say_stopped() -> None:
    kept = _KEPT.get(sys.argv[1] if len(sys.argv) > 1 else "")
    echo(f"promptkit: stopped; {kept}, the same command goes on" if kept else "promptkit: stopped", err=True)


def _show(show: Any) -> Any:
    """Return what prints our own warnings as one line on stderr, each once, and leaves all others to `show`."""
    said = set()

    def print_warning(message: Warning | str, category: type[Warning], *place: Any) -> None:
        if issubclass(category, PromptkitWarning):
            if str(message) not in said:
                _say(f"warning: {message}")
            said.add(str(message))
        else:
            show(message, category, *place)

    return print_warning
