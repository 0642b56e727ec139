"""Define a record: one item of a task, as every other module sees it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
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


#: A query that asks nothing, for what is drawn or rendered for no record in particular.
EMPTY_QUERY = Record(id="", fields={}, label=None)


def hash_records(records: Sequence[Record]) -> str:
    """Return a hex digest of the records' ids, fields, labels and rationales, in their order."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(repr((record.id, dict(record.fields), record.label, record.rationale, record.choices)).encode())
    return digest.hexdigest()
