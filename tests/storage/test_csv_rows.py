"""Rows of CSV: read again as they were written, and nothing in them runs."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptkit.storage.csv_rows import make_row_writer, quote_formula

CELLS = st.text(st.sampled_from("ab,;\t\r\n\"' =1"), max_size=6)


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ('=HYPERLINK("http://x")', '\'=HYPERLINK("http://x")'),
        ("+1+cmd|' /C calc'!A0", "'+1+cmd|' /C calc'!A0"),
        ("-1+1", "'-1+1"),
        ("-b", "'-b"),
        ("@SUM(1)", "'@SUM(1)"),
        ("  =1", "'  =1"),
        ('"=1', "'\"=1"),
        ("\tx", "'\tx"),
        ("\rx", "'\rx"),
        ("\uff1d1", "'\uff1d1"),
        ("-0.5", "-0.5"),
        ("-.5", "-.5"),
        ("+1e-3", "+1e-3"),
        ("plain = 1", "plain = 1"),
        ("", ""),
    ],
)
def test_text_that_a_spreadsheet_would_run(text: str, cell: str) -> None:
    """Text that begins as a formula does has an apostrophe in front; numbers stay numbers."""
    assert quote_formula(text) == cell


@given(rows=st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1), end=st.sampled_from(["\n", "\r\n"]))
def test_rows_are_read_as_they_were_written(rows: list[list[str]], end: str) -> None:
    """Delimiters, quotes and every kind of line end stay within their cell."""
    file = io.StringIO(newline="")
    write_row = make_row_writer(file, delimiter=";", end=end)
    for row in rows:
        write_row(row)
    assert list(csv.reader(io.StringIO(file.getvalue(), newline=""), delimiter=";")) == rows
