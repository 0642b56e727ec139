"""Measure pairs per CPU second, file to data set, beside a bare Jinja2 template; run by hand."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jinja2

import promptkit as pk
from promptkit.building import make_set
from promptkit.data.copies import survey_records
from promptkit.data.records import iterate_records
from promptkit.prompts.pair import pair_table
from promptkit.templating.template import Template, load_template

ROWS = 100_000
WORDS = [
    "the",
    "soup",
    "was",
    "warm",
    "and",
    "the",
    "waiter",
    "kind",
    "but",
    "the",
    "bill",
    "came",
    "late",
    "again",
    "and",
    "nobody",
    "said",
    "why",
]

FILTERS = "{{ text | trim | upper | replace('A', 'a') }} ({{ text | length }})"
LOOP = "{% for word in text.split() %}{{ loop.index }}. {{ word }}\n{% endfor %}"


def best(work: Callable[[], object], times: int = 3) -> float:
    """Return the CPU seconds of the quickest of some runs: the others measure what else the machine did."""
    seconds = []
    for _ in range(times):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return min(seconds)


def _write(folder: Path, name: str, body: str) -> Template:
    """Write a template whose input macro has this body, and load it."""
    macros = {"instruction(labels)": "Say {{ labels | either }}.", "input(text)": body, "target(label)": " {{ label }}"}
    path = folder / f"{name}.jinja"
    path.write_text("\n".join(f"{{% macro {head} %}}{text}{{% endmacro %}}" for head, text in macros.items()))
    return load_template(path)


def main() -> None:
    """Print pairs per second of each way."""
    template, task = pk.load_template("sentiment/plain"), pk.load_task("sst2")
    bound = template.bind(task)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.jsonl"
        texts = [" ".join(WORDS[i % 7 : i % 7 + 10]) + f" {i}" for i in range(ROWS)]
        path.write_text("".join(json.dumps({"sentence": t, "label": i % 2}) + "\n" for i, t in enumerate(texts)))
        records = list(iterate_records(task, "train", data=path))
        bare = jinja2.Environment().from_string("Text: {{ text }}\nSentiment:").render
        weights = {"sentiment/plain": 2.0, "sentiment/form": 1.0}
        whole, drawn = (make_set(task, way, data=path, split="train", copies="keep") for way in (template, weights))
        limited = {name: _write(Path(folder), name, body) for name, body in (("filters", FILTERS), ("loop", LOOP))}
        ways: dict[str, Callable[[], object]] = {
            "file to datasets.Dataset (build_pairs)": lambda: pk.build_pairs(task, template, data=path, split="train"),
            "records to Arrow table (pair_table)": lambda: pair_table(bound, records),
            "rows of a set, nothing drawn": lambda: sum(1 for _ in whole.rows()),
            "rows of a set, a template drawn of two": lambda: sum(1 for _ in drawn.rows()),
            "records into what finds copies": lambda: survey_records(records, seed=0),
            "bare Jinja2 render of the prompt alone": lambda: [bare(text=text) for text in texts],
        }
        for name, body in (("filters", FILTERS), ("loop", LOOP)):
            alone, made = jinja2.Environment().from_string(body).render, limited[name].bind(task)
            ways[f"records to Arrow table, {name}"] = lambda made=made: pair_table(made, records)
            ways[f"bare Jinja2 render, {name}"] = lambda alone=alone: [alone(text=text) for text in texts]
        for name, work in ways.items():
            print(f"{name:<42} {ROWS / best(work):>10,.0f} per second")


if __name__ == "__main__":
    main()
