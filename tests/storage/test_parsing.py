"""Malformed JSON, TOML and numbers: one ValueError each, never another exception."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptkit.storage.parsing import is_whole, parse_json, parse_json_object, parse_toml, parse_whole

DEEP = "[" * 20_000


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "Expecting"),
        (b"\xff\xfe{", "decode"),
        (b"NaN", "NaN is no number of JSON"),
        (b'{"a": -Infinity}', "-Infinity is no number of JSON"),
        (DEEP.encode(), "nested too deeply"),
        (b"9" * 5000, "too many digits"),
        (rb'"\ud800"', "surrogates not allowed"),
        (b"", "Expecting"),
    ],
)
def test_text_that_is_no_json_is_a_value_error(content: bytes, words: str) -> None:
    """Whatever is wrong with a JSON text, a ValueError says so."""
    with pytest.raises(ValueError, match=words):
        parse_json(content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"x =", "Invalid value"),
        (b"x = \xff", "decode"),
        (b"seed = " + b"9" * 5000, "too many digits"),
        (b"seed = 9223372036854775808", "beyond 64 bits"),
        (b"x = [[-9223372036854775809]]", "beyond 64 bits"),
        (f"x = {DEEP}".encode(), "nested too deeply"),
        (b"x = 1\nx = 2", "overwrite"),
        (rb'x = "\ud800"', "scalar value"),
    ],
)
def test_text_that_is_no_toml_is_a_value_error(content: bytes, words: str) -> None:
    """Whatever is wrong with a TOML text, a ValueError says so."""
    with pytest.raises(ValueError, match=words):
        parse_toml(content)


def test_marks_in_front_are_passed_over() -> None:
    """A byte order mark, as some editors write it, is no part of the text."""
    assert parse_json(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}
    assert parse_toml(b"\xef\xbb\xbfa = 1") == {"a": 1}


def test_an_object_is_told_from_other_json() -> None:
    """Where an object is expected, a list is an error that names both."""
    assert parse_json_object('{"a": "\\ud83d\\ude00"}') == {"a": "😀"}
    with pytest.raises(ValueError, match="a JSON object is expected, found list"):
        parse_json_object("[]")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_what_json_writes_is_read_back(value: Any) -> None:
    """Whole numbers of any size and floats come back as they were."""
    assert parse_json(json.dumps(value)) == value


@pytest.mark.parametrize("text", ["", "--5", "5.0", "٣", "1_000", " 1", "9" * 4001])
def test_other_texts_are_no_whole_numbers(text: str) -> None:
    """Signs twice, other scripts' digits, underlines and endless digits are errors, not numbers."""
    assert not is_whole(text)
    with pytest.raises(ValueError, match="not a whole number"):
        parse_whole(text)


def test_whole_numbers_keep_their_sign() -> None:
    """A negative number is read; `is_whole` is for those from 0."""
    assert (parse_whole("-12"), parse_whole("007")) == (-12, 7)
    assert is_whole("7")
    assert not is_whole("-7")
