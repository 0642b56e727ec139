"""Parse and write JSON, parse TOML and numbers: whatever is wrong with a text is one ValueError."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Never, TypeAlias

from promptkit.errors import RunError

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"

_INT64 = range(-(2**63), 2**63)
#: The digits of the longest whole number that is read: Python refuses from 4,301 on, and so do files from here on.
_DIGITS = 4000
_TOO_DEEP = "its lists or objects are nested too deeply to be read"
_WHOLE = re.compile(r"-?[0-9]+")


def parse_whole(text: str) -> int:
    """Return the whole number that ASCII digits write, with a sign or without; raises ValueError for all else."""
    if len(text) > _DIGITS or not _WHOLE.fullmatch(text):
        raise ValueError(f"{text!r:.60} is not a whole number of up to {_DIGITS:,} digits")
    return int(text)


def is_whole(text: str) -> bool:
    """Whether `parse_whole` reads this text as a number that is not negative."""
    return len(text) <= _DIGITS and bool(_WHOLE.fullmatch(text)) and not text.startswith("-")


def parse_json(content: bytes | str, *, endless: bool = False) -> Any:
    """Return the value that a JSON text holds; a byte order mark in front is passed over.

    With `endless`, NaN and Infinity are read too, which the configurations of models have.

    Raises ValueError for all that is no JSON: also for NaN, lone surrogates, bytes that are not UTF-8, and lists or
    objects nested too deeply to be read.
    """
    text = content if isinstance(content, str) else content.decode("utf-8-sig")
    try:
        value = json.loads(text, parse_constant=float if endless else _refuse_constant)
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    except ValueError as error:
        raise _tell(error) from error
    if "\\ud" in text.casefold():
        json.dumps(value, ensure_ascii=False).encode()  # raises for half of a pair
    return value


def _refuse_constant(name: str) -> Never:
    raise ValueError(f"{name} is no number of JSON")


def parse_json_object(content: bytes | str, *, endless: bool = False) -> dict[str, Any]:
    """Return the JSON object that a text holds, see `parse_json`; raises ValueError for everything else."""
    value = parse_json(content, endless=endless)
    if not isinstance(value, dict):
        raise ValueError(f"a JSON object is expected, found {type(value).__name__}")
    return value


def parse_toml(content: bytes) -> dict[str, Any]:
    """Return the table that a TOML file holds; a byte order mark in front is passed over.

    Raises ValueError for all that is no TOML: also for bytes that are not UTF-8, for whole numbers beyond 64 bits, and
    for lists or tables nested too deeply to be read.
    """
    try:
        table = tomllib.loads(content.decode("utf-8-sig"))  # editors may write a byte order mark first
        too_large = any(number not in _INT64 for number in _whole_numbers(table))
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    except ValueError as error:
        raise _tell(error) from error
    if too_large:
        raise ValueError("a whole number is beyond 64 bits, which TOML does not allow")
    return table


def _tell(error: ValueError) -> ValueError:
    """Return the error in words for a user: of endless digits Python's own speaks of a setting of Python."""
    return ValueError("a number has too many digits") if "set_int_max_str_digits" in str(error) else error


def _whole_numbers(value: Any) -> Iterator[int]:
    if isinstance(value, dict | list):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _whole_numbers(entry)
    elif isinstance(value, int):
        yield value


def first_difference(found: Any, wanted: Any, name: str = "") -> str:
    """Return `seed = 0, not 1` for the first difference, with the names that lead to it; or nothing."""
    if found == wanted:
        return ""
    if not (isinstance(found, dict) and isinstance(wanted, dict)):
        return f"{name} = {_brief(found)}, not {_brief(wanted)}"
    for key in sorted(found.keys() | wanted.keys()):
        inner = key if name in ("", "settings", "grid") else f"{name}.{key}"
        if key not in found or key not in wanted:
            return f"no {inner}, not {_brief(wanted[key])}" if key in wanted else f"{inner}, which is not given now"
        difference = first_difference(found[key], wanted[key], inner)
        if difference:
            return difference
    return ""


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def cell_key(spec: Mapping[str, JSON]) -> str:
    """Return the hex SHA-256 of the spec as canonical JSON: another byte, another cell."""
    return hashlib.sha256(canonical_json(spec, "a cell's spec")).hexdigest()


def canonical_json(value: JSON, where: object, indent: int | None = None) -> bytes:
    """Return the one JSON text of a value: keys sorted, floats in their shortest exact form, ASCII."""
    separators = (",", ":") if indent is None else None
    try:
        text = json.dumps(value, sort_keys=True, allow_nan=False, separators=separators, indent=indent)
    except ValueError as error:
        raise RunError(f"{where}: a number is NaN or infinite, which is no result; try --dtype float32") from error
    return text.encode()
