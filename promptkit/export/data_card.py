"""Write the README.md of a data set: what its rows hold, counted as they pass."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from promptkit._version import __version__
from promptkit.data.records import folder_beside
from promptkit.data.tasks import Task

#: More different answers than these are not labels of a set but texts of its rows: they are not listed.
MOST_ANSWERS = 50
_SIZES = {"n<1K": 10**3, "1K<n<10K": 10**4, "10K<n<100K": 10**5, "100K<n<1M": 10**6, "1M<n<10M": 10**7}
_TERMS = """\
The terms of this set are unknown: nothing that built it knows them. The texts of its rows are those of the sources
named above, whose terms apply to them. Whoever passes the set on must look these up, fill in `license` at the head of
this file, and say here what they ask for and whom they name.
"""


class Tally:
    """How many rows passed, of which task and template, and with which answer."""

    def __init__(self) -> None:
        self.rows = 0
        self.columns: tuple[str, ...] = ()
        self.sources: Counter[tuple[str, str, str]] = Counter()
        self.answers: Counter[str] = Counter()

    def watch(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """Yield rows as they are, and count them."""
        for row in rows:
            self.rows += 1
            source = tuple(str(row.get(name) or "") for name in ("task", "template", "template_hash"))
            self.sources[source[0], source[1], source[2]] += 1
            if len(self.answers) <= MOST_ANSWERS:
                self.answers[_answer(row)] += 1
            yield row

    def note_columns(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """Yield rows as they are, and note the columns of the first."""
        for row in rows:
            self.columns = self.columns or tuple(row)
            yield row


def _answer(row: Mapping[str, Any]) -> str:
    """Return the text of a row's answer: the choice that its label names, or the label itself."""
    label, choices = row.get("label"), row.get("choices")
    return str(choices[label]) if isinstance(label, int) and choices else "" if label is None else str(label)


def write_card(tally: Tally, *, name: str, kind: str, format_: str, split: str, tasks: Sequence[Task] = ()) -> str:
    """Return the text of README.md: what the rows are, how they were made, how many of which, and their terms.

    `kind` is prompts or pairs, `tasks` those of the rows whose descriptions are to be told. A function of its
    arguments and of promptkit's version: no date, no path.
    """
    what = {"prompts": "in-context-learning prompts", "pairs": "pairs of a prompt and the completion to learn"}[kind]
    templates = {(template, hash_) for _, template, hash_ in tally.sources}
    parts = [
        _head(name, tally.rows),
        f"# {name}\n",
        f"{tally.rows:,} {what}, split `{split}`, format `{format_}`. "
        f"Columns: {', '.join(f'`{column}`' for column in tally.columns)}.\n",
        "## How it was made\n",
        f"promptkit {__version__} put records into words with "
        f"{'one template' if len(templates) == 1 else f'{len(templates)} templates'}. "
        "The columns `id`, `task`, `template` and `template_hash`, where there are such, say what a row came from.\n",
        _tell_tasks(tally, tasks),
        "## What is in it\n",
        _table(("task", "template", "hash", "rows"), [(*key[:2], key[2][:12], n) for key, n in _sorted(tally.sources)]),
        _tell_answers(tally.answers),
        "## Terms\n",
        _TERMS,
    ]
    return "\n".join(part for part in parts if part)


def _head(name: str, rows: int) -> str:
    """Return the YAML that the hub reads; JSON texts are YAML texts."""
    size = next((size for size, most in _SIZES.items() if rows < most), "n>10M")
    lines = ["---", f"pretty_name: {json.dumps(name)}", "license: unknown", f"size_categories: [{json.dumps(size)}]"]
    return "\n".join([*lines, "task_categories: [text-generation]", "tags: [promptkit]", "---", ""])


def _tell_tasks(tally: Tally, tasks: Sequence[Task]) -> str:
    known = {task.name: task for task in tasks}
    lines = []
    for name in sorted({task for task, _, _ in tally.sources} & known.keys()):
        task = known[name]
        reference = f" ({task.reference})" if task.reference else ""
        told = " ".join(f"{task.description}{reference}".split())
        lines.append(f"- `{name}`: {told}. Source, unless local files took its place: {_tell_source(task)}.")
    return "\n".join([*lines, ""]) if lines else ""


def _tell_source(task: Task) -> str:
    if folder_beside(task):
        return f"the folder `{task.data.path}` beside its task file"
    return f"the hub's `{task.data.path}`" if task.data.path else "a generator that ships with promptkit"


def _tell_answers(answers: Counter[str]) -> str:
    if len(answers) > MOST_ANSWERS:
        return "The answers are texts, or choices of each record's own.\n"
    return _table(("answer", "rows"), [(json.dumps(text, ensure_ascii=False), n) for text, n in _sorted(answers)])


def _sorted(counts: Mapping[Any, int]) -> list[tuple[Any, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _table(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    cells = [names, ["---"] * len(names), *([str(value).replace("|", "\\|") for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells) + "\n"
