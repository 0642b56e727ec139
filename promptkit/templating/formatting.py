"""Parse the name of a format, such as `sep=' - ',case=upper`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from promptkit.errors import TemplateError, nearest

#: What the axes are called in a name, and the attributes of Format that they set.
AXES = {"sep": "separator", "case": "casing", "space": "spacing", "between": "between", "marker": "marker"}
OWN = "own"
CASINGS: dict[str, Callable[[str], str]] = {
    "title": lambda name: re.sub(r"\w[\w'’]*", lambda word: word[0][0].upper() + word[0][1:].lower(), name),
    "upper": str.upper,
    "lower": str.lower,
}
_SETTING = re.compile(r"""\s*(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^'",]+?)\s*(?:,(?!\s*\Z)|\Z)""", re.S)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"'}


@dataclass(frozen=True)
class Format:
    """The form of a template's text; None leaves an axis as the template has it.

    `separator` stands between a field's name and its value and ends with white space, with which the target
    begins where a name is the last thing of the input. `casing` (title, upper, lower) is that of the names.
    `spacing` stands in front of a field in place of the line break and begins with white space. `between`
    stands between demonstrations. `marker` is a bullet, for lists that have bullets, or signs around an x,
    for lists that are lettered or numbered.

    Raises TemplateError for a value that is not allowed.
    """

    separator: str | None = None
    casing: str | None = None
    spacing: str | None = None
    between: str | None = None
    marker: str | None = None

    def __post_init__(self) -> None:
        """Check each axis."""
        if self.casing is not None and self.casing not in CASINGS:
            near = nearest(self.casing, CASINGS)
            raise TemplateError(f"format: unknown casing {self.casing!r}; known: {', '.join(CASINGS)}.{near}")
        if self.separator is not None and not self.separator[-1:].isspace():
            raise TemplateError(
                f"format: the separator {self.separator!r} does not end with white space, "
                f"with which a target has to begin; try {self.separator + ' '!r}"
            )
        if self.spacing is not None and not self.spacing[:1].isspace():
            raise TemplateError(
                f"format: the spacing {self.spacing!r} does not begin with white space, "
                f"with which a target has to begin; try {' ' + self.spacing!r}"
            )
        if self.marker is not None and not re.fullmatch(r"[^\w\s]*x[^\w\s]+|[^\w\s]+", self.marker):
            raise TemplateError(
                f"format: {self.marker!r} is no list marker; give a bullet such as '*', or signs around an x such as "
                "'(x)' or 'x)', where x stands for the letter or number"
            )

    @property
    def name(self) -> str:
        """A name that tells this format from every other and that `parse_format` reads; `own` for no change."""
        given = [(key, getattr(self, attribute)) for key, attribute in AXES.items()]
        return ",".join(f"{key}={_quote(key, text)}" for key, text in given if text is not None) or OWN


def parse_format(text: str) -> Format:
    """Return the format that a name such as `sep=' - ',case=upper` describes; `own` changes nothing.

    The axes are `sep`, `case`, `space`, `between` and `marker`. A value stands in quotes, in which `\\n`, `\\t`
    and `\\r` are read, or without any where it holds no comma, no quote and no white space at its ends.
    Raises TemplateError for anything else.
    """
    values: dict[str, str] = {}
    position = 0
    while text.strip() != OWN and (position < len(text) or not values):
        setting = _SETTING.match(text, position)
        if setting is None:
            raise TemplateError(
                f"format {text!r}: cannot be read from {text[position:]!r} on; write {OWN!r} or settings with commas "
                "between them, such as sep=' - ',case=upper"
            )
        key, value = setting.groups()
        if key not in AXES:
            raise TemplateError(f"format {text!r}: unknown axis {key!r}; known: {', '.join(AXES)}.{nearest(key, AXES)}")
        if AXES[key] in values:
            raise TemplateError(f"format {text!r}: {key!r} is given twice")
        values[AXES[key]] = _unquote(value, text)
        position = setting.end()
    return Format(**values)


def _quote(key: str, text: str) -> str:
    if key == "case":
        return text
    for sign in "\\'\n\t\r":
        text = text.replace(sign, "\\" + {"\n": "n", "\t": "t", "\r": "r"}.get(sign, sign))
    return f"'{text}'"


def _unquote(value: str, text: str) -> str:
    if value[0] not in "'\"":
        return value

    def read(escape: re.Match[str]) -> str:
        if escape[1] not in _ESCAPES:
            raise TemplateError(f"format {text!r}: unknown escape {escape[0]!r}; known: \\n, \\t, \\r, \\\\ and quotes")
        return _ESCAPES[escape[1]]

    return re.sub(r"\\(.)", read, value[1:-1], flags=re.S)
