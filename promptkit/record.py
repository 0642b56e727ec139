"""One item of a task, as every other module sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Record:
    """A record: what is asked, and, where it is known, the answer.

    `label` is an index into the task's labels or, where the record brings its own `choices`, into
    those; it is text where the answer is free, and None where it is unknown. `fields` holds what
    templates may show before the answer, so neither the label nor the rationale is ever in it.
    """

    id: str
    fields: Mapping[str, Any]
    label: int | str | None
    rationale: str | None = None
    choices: tuple[str, ...] | None = None
