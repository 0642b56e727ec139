"""Print what verbs return: results to stdout, progress to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click

from promptkit.report.terminal import PICTURES, make_console, make_visible


@contextmanager
def tracking() -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """Show a bar on stderr for every piece of work that is tracked in the block."""
    from promptkit.report.progress import Bars

    with Bars() as bars:
        yield bars.track


def console() -> Any:
    """Return the terminal, which leaves brackets in texts alone."""
    return make_console()


def echo(text: str, *, err: bool = False) -> None:
    """Print a line, on stderr with `err`; no character of a text from a file reaches a terminal as a command."""
    click.echo(make_visible(text), err=err)


def warn_of_notes(result: Mapping[str, Any]) -> None:
    """Print the notes of a result that are warnings on stderr, where they are seen beside JSON too."""
    for note in result.get("notes", ()):
        if note.startswith("warning: "):
            echo(f"promptkit: {note}", err=True)


def print_result(result: dict[str, Any], as_json: bool) -> None:
    """Print the object of compare or score, as JSON or as tables."""
    if as_json:
        print_json(result)
    else:
        from promptkit.report.comparison_table import print_comparison

        print_comparison(result, console())


def print_json(result: Any) -> None:
    """Print one JSON object, in UTF-8."""
    _print_object(json.dumps(result, ensure_ascii=False, allow_nan=False))


def print_rows(rows: Iterable[Any]) -> None:
    """Print JSON objects, one a line: in UTF-8, as in files, whatever the locale."""
    for row in rows:
        _print_object(json.dumps(row, ensure_ascii=False))


def _print_object(text: str) -> None:
    """Print JSON as in files; on a terminal, characters that it would obey as JSON's own escapes."""
    if sys.stdout.isatty():
        text = "".join(f"\\u{ord(sign):04x}" if ord(sign) in PICTURES else sign for sign in text)
    click.echo(text.encode())


def brief(value: Any) -> str:
    """Return a value in few characters."""
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, list | tuple):
        return " ".join(f"{number:.3f}" for number in value) or "–"
    return str(value)
