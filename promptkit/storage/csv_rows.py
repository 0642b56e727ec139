"""Write rows of CSV that every reader takes for the same rows, and whose text no spreadsheet runs."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from typing import TextIO

_FORMULA = re.compile(r"[\t\r\n]|[\s'\"\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


def quote_formula(text: str) -> str:
    """Return the text for a cell of a CSV file, with an apostrophe in front where a spreadsheet would run it.

    That is text which begins with = + - or @, as such or full-width, also behind spaces and quotes, and text that
    begins with a tab or a line end. A number stays as it is.
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def make_row_writer(file: TextIO, *, delimiter: str = ",", end: str = "\n") -> Callable[[Sequence[object]], object]:
    """Return what writes one row to `file`; cells are quoted where a reader would not take them as they are."""
    plain, quoting = (
        csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=each)
        for each in (csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC)
    )

    def write(cells: Sequence[object]) -> None:
        # a carriage return ends a row for whoever reads it, and Python before 3.13 does not quote it
        writer = quoting if any("\r" in str(cell) for cell in cells) else plain
        writer.writerow(cells)

    return write
