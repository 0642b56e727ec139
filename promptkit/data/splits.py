"""Split a task's data into test, pool and validation records that share no copies."""

from __future__ import annotations

import hashlib
import itertools
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from promptkit.data.local import Data, DataFiles, as_data
from promptkit.data.record import Record
from promptkit.data.records import (
    check_limit,
    describe_source,
    has_split,
    hash_order,
    is_one_file,
    iterate_records,
    load_records,
    sample_records,
)
from promptkit.data.tasks import Task
from promptkit.errors import DataError, PromptkitWarning
from promptkit.storage.files import open_input

#: Validation records taken at most; without a validation split, a tenth of the training split at most.
VALIDATION_LIMIT = 100
VALIDATION = "validation"
#: The seed of the shuffle by which one file is cut in two: always this one.
_CUT = 0
#: Labels named at most that no training row has.
_MOST_NAMED = 10


@dataclass(frozen=True)
class Splits:
    """Records that share no item: what is tested on, what demonstrations and training rows come from.

    `notes` say in words what was set aside on the way. `one_file` is the hash of the file that was cut for it, empty
    where there were several sources.
    """

    test: tuple[Record, ...]
    pool: tuple[Record, ...]
    validation: tuple[Record, ...]
    notes: tuple[str, ...] = ()
    one_file: str = ""


def load_splits(
    task: Task,
    *,
    data: Data | None = None,
    split: str = "test",
    limit: int | None = None,
    train_limit: int | None = None,
    seed: int = 0,
    pool: bool = True,
    cut: bool = False,
) -> Splits:
    """Return `limit` test records, `train_limit` pool records and some for validation, after shuffles by `seed`.

    Without `pool` nothing but the test is read, and one file is all test unless it is to be `cut`.

    Records of the training split that ask the same as one of the test or validation split, or nearly the same, are
    left out and counted: so are they where a training set is built. One file for everything (`data` is a file) is cut
    into test and pool, always in the same place: a model trained on the one half was not trained on the other.

    Raises DataError for an empty split and for whatever the data hold that cannot be read.
    """
    data = as_data(data)
    if not pool and not (cut and data is not None and is_one_file(data)):
        return Splits(tuple(load_records(task, split, data=data, limit=limit, seed=seed)), (), ())
    if data is not None and is_one_file(data):
        tested, train, notes = _cut_file(task, data)
    else:
        if split == "train":
            raise DataError("the training split cannot be the test split; give --split test or validation")
        tested = load_records(task, split, data=data)
        train, notes = load_records(task, "train", data=data), []
    if limit is not None or is_one_file(data):
        tested_on = sample_records(tested, len(tested) if limit is None else check_limit(limit), seed=seed)
    else:
        tested_on = tested
    one_file = hash_one_file(data)
    if not pool:
        return Splits(tuple(tested_on), (), (), tuple(notes), one_file)
    own_split = split != "validation" and not is_one_file(data)
    training = split_training(
        task, train, {split: tested}, data=data, limit=train_limit, seed=seed, own_split=own_split
    )
    if not training.rows:
        raise DataError(f"task {task.name!r}: no training records are left for demonstrations and training")
    if missing := describe_missing(task, training.rows):
        notes.append(missing)
    return Splits(tuple(tested_on), training.rows, training.validation, (*notes, *training.notes), one_file)


def describe_missing(task: Task, pool: Sequence[Record]) -> str | None:
    """Return in words which of the task's labels no record of a pool has; None where every label has one."""
    missing = find_unlearned(task.labels or (), {record.label for record in pool})
    if not missing:
        return None
    return f"none of the {len(pool):,} training records has the label {_name(missing)}: demonstrations never show it"


@dataclass(frozen=True)
class Training:
    """Records to train on and those to validate on, sharing no item with each other nor with the test."""

    rows: tuple[Record, ...]
    validation: tuple[Record, ...]
    notes: tuple[str, ...] = ()


def load_training(task: Task, *, data: Data | None = None, limit: int | None = None, seed: int = 0) -> Training:
    """Return a task's training records, `limit` of them after a shuffle, and those to validate on.

    They are what `load_splits` calls pool and validation: of one file the half that is not tested on, without copies
    of test and validation records. Raises DataError for what the data hold that cannot be read.
    """
    if data is not None and is_one_file(data):
        tested, train, notes = _cut_file(task, data)
        return _add_notes(split_training(task, train, {"test": tested}, limit=limit, seed=seed, own_split=False), notes)
    train = load_records(task, "train", data=data)
    if not has_split(task, "test", data) or _is_one_source(task, data):
        training = split_training(task, train, {}, data=data, limit=limit, seed=seed)
        return _add_notes(training, ["there is no test split of its own to compare the training records with"])
    tested = list(iterate_records(task, "test", data=data, labelled=False))
    return split_training(task, train, {"test": tested}, data=data, limit=limit, seed=seed)


def _is_one_source(task: Task, data: Data | None) -> bool:
    """Return whether training and test split are read from the same place."""
    if task.data.generator and data is None:
        return False
    return describe_source(task, "train", data) == describe_source(task, "test", data)


def hash_one_file(data: Data | None) -> str:
    """Return the hex SHA-256 of the one file that records come from; empty where they come from elsewhere."""
    if data is None or not is_one_file(data):
        return ""
    given = as_data(data)
    if not isinstance(given, DataFiles):
        return given.hash_rows() if given else ""
    digest = hashlib.sha256()
    with open_input(given.path) as file:
        for block in iter(lambda: file.read(2**20), b""):
            digest.update(block)
    return digest.hexdigest()


def _add_notes(training: Training, notes: Sequence[str]) -> Training:
    return replace(training, notes=(*notes, *training.notes))


def split_training(
    task: Task,
    train: Sequence[Record],
    tested: Mapping[str, Sequence[Record]],
    *,
    data: Data | None = None,
    limit: int | None = None,
    seed: int = 0,
    own_split: bool = True,
) -> Training:
    """Return `limit` of the records of `train` and some to validate on, without copies of those that are `tested`.

    Validation records come from the validation split where there is one and `own_split` allows it, and are otherwise
    set aside from `train`: a tenth of it, `VALIDATION_LIMIT` at most. None of them is a copy of a tested record, and no
    record that is trained on is a copy of one in the validation split or among those set aside.
    """
    kept, notes = leave_out_copies(train, tested, "training")
    if own_split and has_split(task, VALIDATION, data):
        others = load_records(task, VALIDATION, data=data)
        validation = sample_records(others, VALIDATION_LIMIT, seed=seed)
        validation, _ = leave_out_copies(validation, tested, VALIDATION)
    else:
        shuffled = sample_records(kept, len(kept), seed=seed)
        count = min(VALIDATION_LIMIT, len(kept) // 10)
        validation, kept = shuffled[len(kept) - count :], shuffled[: len(kept) - count]
        others = validation
    rest, more = leave_out_copies(kept, {VALIDATION: others}, "training")
    rows = rest if limit is None else sample_records(rest, limit, seed=seed)
    return Training(tuple(rows), tuple(validation), (*notes, *more))


def note_unlearned(task: Task, sets: Iterable[Sequence[int | str | None]]) -> list[str]:
    """Return one note of the task's labels that no row of a training set has, of all these sets; or nothing.

    A set is the answers of its rows: labels are indices.
    """
    missing: dict[int, list[str]] = {}
    for answers in sets:
        if unlearned := find_unlearned(task.labels or (), set(answers)):
            missing[len(answers)] = unlearned
    if not missing:
        return []
    where = f"task {task.name!r}, trained on {' or '.join(str(size) for size in sorted(missing))} rows"
    return [describe_unlearned(where, missing[min(missing)])]


def find_unlearned(labels: Sequence[str], learned: Collection[object]) -> list[str]:
    """Return the labels whose index is not among those that are learned."""
    return [label for index, label in enumerate(labels) if index not in learned]


def describe_unlearned(where: str, labels: Sequence[str]) -> str:
    """Return a warning that no training row has one of these labels."""
    return (
        f"warning: {where}: no training row has the label {_name(labels)}, which will hardly ever be predicted; add "
        "rows with it, raise the limit, or take it out of the task"
    )


def _name(labels: Sequence[str]) -> str:
    return ", ".join(map(repr, labels[:_MOST_NAMED])) + (" …" if len(labels) > _MOST_NAMED else "")


def leave_out_tested(pool: Sequence[Record], tested: Sequence[Record], split: str = "test") -> tuple[Record, ...]:
    """Return the records of a pool that ask nothing that `tested` records ask; warns of how many are left out.

    Demonstrations that show the answer to what is asked are so in no verb's prompts. Raises DataError where none stay.
    """
    kept, notes = leave_out_copies(pool, {split: tested}, "training")
    if not kept:
        raise DataError(f"every training record is also a {split} record; none is left for demonstrations")
    for note in notes:
        warnings.warn(note, PromptkitWarning, stacklevel=3)
    return tuple(kept)


def leave_out_copies(
    records: Sequence[Record], others: Mapping[str, Sequence[Record]], kind: str
) -> tuple[list[Record], list[str]]:
    """Return the records that are no copies of the others, nor nearly, and a note of how many are, per split."""
    from promptkit.data.copies import find_tested

    kept: Sequence[Record] = records
    notes = []
    for split, those in others.items():
        findings = find_tested(kept, {split: those})
        counts = findings.count()
        if not counts:
            continue
        near = sum(count for reason, count in counts.items() if reason.startswith("nearly"))
        note = f"{sum(counts.values())} {kind} records that are also {split} records were left out"
        notes.append(note + (f", {near} of them nearly the same" if near else ""))
        kept = [record for record, stays in zip(kept, findings.kept.tolist(), strict=True) if stays]
    return list(kept), notes


def _cut_file(task: Task, data: Data) -> tuple[list[Record], list[Record], list[str]]:
    """Return the records of one file that are tested on, those that are not, and what to say of it."""
    data = as_data(data) or data
    records = load_records(task, "test", data=data)
    first = find_half([record.id for record in records], data)
    tested = [record for place, record in enumerate(records) if place in first]
    train = [record for place, record in enumerate(records) if place not in first]
    kind = "file" if isinstance(data, DataFiles) else "set"
    note = f"{data} is one {kind}: {len(tested)} records were set aside for the test, {len(train)} for training"
    return tested, train, [note]


def is_cut(data: Data | None, split: str | None) -> bool:
    """Return whether records are one half of a file: it is all splits, and none was named, which would be all of it."""
    return split is None and is_one_file(data)


def find_half(ids: Sequence[str], data: Data) -> set[int]:
    """Return the places of the records of one file that are for the test: half of them, whatever the seed.

    So no command tests on what another one trained on. Raises DataError for a file that has too few.
    """
    given = as_data(data)
    if not ids:
        raise DataError(f"{given}: holds no records")
    if len(ids) < 2:
        raise DataError(f"{given}: one record cannot be both tested on and learned from; give a folder with two files")
    keys = [hash_order(_CUT, each) for each in ids]
    return set(sorted(range(len(ids)), key=keys.__getitem__)[: len(ids) // 2])


def iterate_half(task: Task, data: Data, *, tested: bool, labelled: bool = True) -> Iterator[Record]:
    """Yield the records of one file that are tested on, or those that are not, in the file's order.

    The file is read twice; of each record its id is kept. A single record is tested on, and not learned from too.
    """
    ids = [record.id for record in iterate_records(task, "test", data=data, labelled=labelled)]
    first = {0} if tested and len(ids) == 1 else find_half(ids, data)
    chosen = ((place in first) == tested for place in range(len(ids)))
    return itertools.compress(iterate_records(task, "test", data=data, labelled=labelled), chosen)
