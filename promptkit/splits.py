"""A task's data into the records of one comparison: test, pool and validation, kept apart."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from promptkit.data import has_split, hash_order, is_one_file, iterate_records, load_records, sample_records
from promptkit.errors import DataError
from promptkit.record import Record
from promptkit.task import Task

#: Validation records taken at most; without a validation split, a tenth of the training split at most.
VALIDATION_LIMIT = 100


@dataclass(frozen=True)
class Splits:
    """Records that share no item: what is tested on, what demonstrations and training rows come from.

    `notes` say in words what was set aside on the way.
    """

    test: tuple[Record, ...]
    pool: tuple[Record, ...]
    validation: tuple[Record, ...]
    notes: tuple[str, ...] = ()


def load_splits(
    task: Task,
    *,
    data: str | Path | None = None,
    split: str = "test",
    limit: int | None = None,
    train_limit: int | None = None,
    seed: int = 0,
    pool: bool = True,
) -> Splits:
    """Return `limit` test records, `train_limit` pool records and some for validation, after shuffles by `seed`.

    Without `pool` nothing but the test is read, and one file is all test.

    Records of the training split whose fields equal those of a test record are left out and counted.
    One file for everything (`data` is a file) is cut into test and pool, at most half of it for the test.

    Raises DataError for an empty split and for whatever the data hold that cannot be read.
    """
    if not pool:
        return Splits(tuple(load_records(task, split, data=data, limit=limit, seed=seed)), (), ())
    if data is not None and is_one_file(data):
        test, train, notes = _cut_file(task, data, limit, seed)
    else:
        if split == "train":
            raise DataError("the training split cannot be the test split; give --split test or validation")
        test = load_records(task, split, data=data, limit=limit, seed=seed)
        train, notes = load_records(task, "train", data=data), []
    tested = {_content(record) for record in test}
    kept = [record for record in train if _content(record) not in tested]
    if len(kept) < len(train):
        notes.append(f"{len(train) - len(kept)} training records that are also test records were left out")
    own_split = split != "validation" and not is_one_file(data)
    validation, rows = split_validation(task, kept, data=data, limit=train_limit, seed=seed, own_split=own_split)
    validation = [record for record in validation if _content(record) not in tested]
    if not rows:
        raise DataError(f"task {task.name!r}: no training records are left for demonstrations and training")
    return Splits(tuple(test), tuple(rows), tuple(validation), tuple(notes))


def split_validation(
    task: Task,
    train: Sequence[Record],
    *,
    data: str | Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    own_split: bool = True,
) -> tuple[list[Record], list[Record]]:
    """Return (validation records, at most `limit` of the rest of `train`), sharing no item.

    They come from the validation split where there is one and `own_split` allows it, and are otherwise
    set aside from `train`: a tenth of it, `VALIDATION_LIMIT` at most.
    """
    if own_split and has_split(task, "validation", data):
        found = load_records(task, "validation", data=data, limit=VALIDATION_LIMIT, seed=seed)
        seen = {_content(record) for record in found}
        rest = [record for record in train if _content(record) not in seen]
    else:
        shuffled = sample_records(train, len(train), seed=seed)
        count = min(VALIDATION_LIMIT, len(train) // 10)
        found, rest = shuffled[len(train) - count :], shuffled[: len(train) - count]
    return found, rest if limit is None else sample_records(rest, limit, seed=seed)


def _cut_file(
    task: Task, data: str | Path, limit: int | None, seed: int
) -> tuple[list[Record], list[Record], list[str]]:
    records = load_records(task, "test", data=data)
    half = halve(len(records), data)
    shuffled = sample_records(records, len(records), seed=seed)
    count = half if limit is None else min(limit, half)
    note = f"{data} is one file: {count} records were set aside for the test, {len(records) - count} for training"
    return shuffled[:count], shuffled[count:], [note]


def is_cut(data: str | Path | None, split: str | None) -> bool:
    """Return whether records are one half of a file: it is all splits, and none was named, which would be all of it."""
    return split is None and is_one_file(data)


def halve(count: int, data: str | Path) -> int:
    """Return how many of `count` records of one file are for the test, the first after a shuffle; the rest is learned.

    Raises DataError for a file that has too few.
    """
    if count < 2:
        raise DataError(f"{data}: one record cannot be both tested on and learned from; give a folder with two files")
    return count // 2


def iterate_half(
    task: Task, data: str | Path, *, tested: bool, seed: int = 0, labelled: bool = True
) -> Iterator[Record]:
    """Yield the records of one file that are tested on, or those that are not, in the file's order.

    The half is the one that a comparison under the same seed tests on at most. The file is read twice; a hash of each
    record is kept.
    """
    places = [hash_order(seed, record.id) for record in iterate_records(task, "test", data=data, labelled=labelled)]
    first = set(sorted(range(len(places)), key=places.__getitem__)[: halve(len(places), data)])
    chosen = ((place in first) == tested for place in range(len(places)))
    return itertools.compress(iterate_records(task, "test", data=data, labelled=labelled), chosen)


def _content(record: Record) -> str:
    return repr((sorted(record.fields.items(), key=lambda item: item[0]), record.choices))
