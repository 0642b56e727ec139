"""Gather the records that the shipped model may be trained on, from task files, data folders and generators."""

import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from promptkit.data.generate import GENERATORS, generate
from promptkit.data.generate.families import HELD_OUT
from promptkit.data.record import Record
from promptkit.data.records import load_records
from promptkit.data.tasks import Task, TaskSource, load_task

REAL = {"sst2": 0.18, "mr": 0.14, "sst5": 0.08, "subj": 0.11, "trec": 0.17}
"""Data sets and their shares of the classification documents; mpqa, agnews and TREC's fine labels are kept out."""

GENERATED = {"gadgets": 0.09, "word-groups": 0.09, "vocabulary": 0.04, "comparison": 0.03} | dict.fromkeys(
    ("spam", "urgency", "formality", "tense", "mood"), 0.026
)
"""Generated families and their shares; the `reviews` task and one family are kept out."""

NEW_GROUPS = ("weather", "furniture", "tools")
"""Word groups that are kept out."""

LONGEST = 300
"""Characters of a text that training shows at most."""

assert not {HELD_OUT, "reviews"} & set(GENERATED)


@dataclass(frozen=True, slots=True)
class FamilyPool:
    """Records of one task to draw documents from; `share` is its weight among the pools."""

    task: Task
    records: Sequence[Record]
    share: float


def load_pools(data: Path, *, seed: int, generated: int = 6_000) -> list[FamilyPool]:
    """The classification pools: real training splits without the sentences of any test, and the families."""
    kept_out = read_kept_out(data)
    real = [_real_pool(data, name, share, kept_out) for name, share in REAL.items()]
    return real + [family_pool(name, share, generated, seed=seed) for name, share in GENERATED.items()]


def load_problems(count: int, *, seed: int) -> FamilyPool:
    """Word problems of the training split; the shipped task's test split has other numbers in the same frames."""
    task = load_task("word-problems")
    rows = generate("word-problems", "train", count, seed=seed)
    records = [
        Record(f"problem-{n}", {"question": row["question"]}, str(row["answer"]), str(row["rationale"]))
        for n, row in enumerate(rows)
    ]
    return FamilyPool(task, records, 1.0)


def family_pool(name: str, share: float, count: int, *, seed: int) -> FamilyPool:
    """Records of one generated family, as a task made on the spot."""
    labels = tuple(label for label in GENERATORS[name].labels if label not in NEW_GROUPS)
    task = Task(
        name=name,
        path=Path(name),
        hash="",
        description=f"the generated family {name}",
        labels=labels,
        templates={"gadgets": "sentiment", "vocabulary": "topic"}.get(name, "plain"),
        fields={"text": "text", "label": "label", "rationale": "rationale"},
        data=TaskSource(generator=name),
    )
    records = [
        Record(
            f"{name}-{n}",
            {"text": row["text"]},
            labels.index(str(row["label"])),
            _optional(row.get("rationale")),
        )
        for n, row in enumerate(generate(name, "train", count, seed=seed))
        if row["label"] in labels
    ]
    return FamilyPool(task, records, share)


def read_kept_out(data: Path) -> frozenset[str]:
    """What must not be trained on, as `letters`: every text of a split not for training, and all of mpqa and agnews."""
    files = [path for path in data.glob("*/*.jsonl") if path.stem != "train" or path.parent.name in ("mpqa", "agnews")]
    return frozenset(letters(text) for path in files for text in _texts(path))


def letters(text: str) -> str:
    """The text without case, spaces and punctuation: what two copies of a sentence share."""
    return re.sub(r"[\W_]+", "", text.lower())


def polish(text: str) -> str:
    """Detokenized text with a capital at its start: the research sets are lower case with spaces before marks."""
    text = re.sub(r" (n't|'\w+|[,.;:!?)\]%])", r"\1", text)
    text = re.sub(r"([(\[$]) ", r"\1", text).replace("-lrb-", "(").replace("-rrb-", ")")
    return text[:1].upper() + text[1:]


def vary(record: Record, rng: random.Random) -> Record:
    """The record with its text polished in three cases of ten."""
    if rng.random() > 0.3:
        return record
    return replace(record, fields={name: polish(str(value)) for name, value in record.fields.items()})


def _real_pool(data: Path, name: str, share: float, kept_out: frozenset[str]) -> FamilyPool:
    task = load_task(name)
    field = task.input_fields[0]
    if field != "text":  # the recipe's own templates ask for `text`
        task = task.model_copy(update={"fields": {**task.fields, "text": task.fields[field]}})
    seen: set[str] = set()
    records = []
    for record in load_records(task, "train", data=data / name):
        key = letters(str(record.fields[field]))
        if key not in kept_out and key not in seen:
            seen.add(key)
            records.append(_shorten(record))
    return FamilyPool(task, records, share)


def _shorten(record: Record) -> Record:
    return replace(record, fields={name: _cut(str(value)) for name, value in record.fields.items()})


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST].rsplit(" ", 1)[0]


def _texts(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield from (value for value in json.loads(line).values() if isinstance(value, str))


def _optional(value: object) -> str | None:
    return None if value is None else str(value)
