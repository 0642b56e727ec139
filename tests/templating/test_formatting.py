"""Names of formats: what they say, and that they say it back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptkit.errors import TemplateError
from promptkit.templating.formatting import CASINGS, Format, parse_format

formats = st.builds(
    Format,
    separator=st.none() | st.text(max_size=4).map(lambda text: f"{text} "),
    casing=st.none() | st.sampled_from(sorted(CASINGS)),
    spacing=st.none() | st.text(max_size=4).map(lambda text: f"\n{text}"),
    between=st.none() | st.text(max_size=6),
    marker=st.sampled_from([None, "*", "•", "(x)", "x."]),
)


@given(formats, formats)
def test_names_round_trip(one: Format, two: Format) -> None:
    """A format's name reads back as that format, and no two formats share a name."""
    assert parse_format(one.name) == one
    assert (one.name == two.name) == (one == two)


def test_a_name_may_be_written_in_several_ways() -> None:
    """Quotes of both kinds, none, and blanks around settings are read alike; order does not matter."""
    wanted = Format(separator=" - ", casing="upper")
    for text in ("sep=' - ',case=upper", 'case="upper", sep=" - "', " case = upper , sep = ' - ' "):
        assert parse_format(text) == wanted
    assert wanted.name == "sep=' - ',case=upper"
    assert parse_format(r"between='\n\t\\'") == Format(between="\n\t\\")
    assert parse_format(Format(between="\\n'\t").name) == Format(between="\\n'\t")
    assert parse_format("own") == Format()
    assert Format().name == "own"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"cannot be read from '' on; write 'own' or settings with commas"),
        ("upper", "cannot be read from 'upper' on"),
        ("case=upper,", "cannot be read"),
        ("casing=upper", r"unknown axis 'casing'; known: sep, case, space, between, marker. Did you mean 'case'\?"),
        ("case=upper,case=lower", "'case' is given twice"),
        ("case=uper", r"unknown casing 'uper'; known: title, upper, lower. Did you mean 'upper'\?"),
        ("sep=':'", "the separator ':' does not end with white space, .*; try ': '"),
        ("space='|| '", r"the spacing '\|\| ' does not begin with white space, .*; try ' \|\| '"),
        ("marker=a", "'a' is no list marker; give a bullet such as"),
        (r"sep='\q '", r"unknown escape '\\\\q'"),
    ],
)
def test_errors_say_what_is_allowed(text: str, message: str) -> None:
    """What cannot be read or is not allowed is refused with the way to write it."""
    with pytest.raises(TemplateError, match=message):
        parse_format(text)
