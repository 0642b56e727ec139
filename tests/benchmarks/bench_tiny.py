"""The figures of the embedded model's card, every one from a promptkit command that is printed beside it.

    python tests/benchmarks/bench_tiny.py --data DIR [--parts prompts,words,groups,cot,lora] [--tasks sst2,…]

DIR holds one folder of JSONL splits per data set. Runs are kept under `runs/` of the working directory, so what was
measured once is not measured again. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

FAMILIES = {
    "sst2": "sentiment",
    "subj": "subjectivity",
    "trec": "question-type",
    "mpqa": "sentiment",
    "agnews": "topic",
    "reviews": "sentiment",
    "word-problems": "word-problems",
}
LABELS = {
    "sentiment": ("negative", "positive"),
    "subjectivity": ("subjective", "objective"),
    "question-type": ("ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM"),
    "topic": ("world", "sports", "business", "technology"),
}
ARBITRARY = ("zip", "nop", "river", "stone", "lamp", "fork")
"""Words that never stood for a label in training."""

SEEN = (("animals", "fruit"), ("music", "vehicles"), ("jobs", "clothes"))
UNSEEN = (("weather", "furniture"), ("furniture", "tools"), ("tools", "weather"))
"""Pairs of word groups; training never saw the unseen ones."""

ITEMS = 200
DRAWS = 20
SIZES = (32, 128, 512, 2048)


def main() -> None:
    """Measure the parts asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--parts", default="prompts,words,groups,cot,lora")
    parser.add_argument("--tasks", default=",".join(FAMILIES))
    parser.add_argument("--model", default="tiny")
    given = parser.parse_args()
    data, tasks = given.data.resolve(), given.tasks.split(",")
    for part in given.parts.split(","):
        {"prompts": prompts, "words": words, "groups": groups, "cot": reasons, "lora": adapters}[part](
            data, tasks, given.model
        )


def prompts(data: Path, tasks: list[str], model: str) -> None:
    """Zero-shot, and 4 and 8 demonstrations over draws, with the templates' own words."""
    print("| task | k | runs | mean | std | min | max |\n|---|---|---|---|---|---|---|")
    for task in tasks:
        result = run("score", task, *source(data, task), "-k", "0,4,8", "--draws", DRAWS, *common(model))
        print_methods(task, result)


def words(data: Path, tasks: list[str], model: str) -> None:
    """4 and 8 demonstrations over draws, with arbitrary words for the labels and no instruction."""
    print("| task | k | runs | mean | std | min | max |\n|---|---|---|---|---|---|---|")
    for task in tasks:
        if FAMILIES[task] not in LABELS:
            continue
        template = write_template(FAMILIES[task], LABELS[FAMILIES[task]])
        asked = ("--template", template, "-k", "4,8", "--draws", DRAWS)
        print_methods(task, run("score", task, *source(data, task), *asked, *common(model)))


def groups(_: Path, __: list[str], model: str) -> None:
    """Words of two groups beside arbitrary words, in both assignments, 8 demonstrations."""
    print("| groups | k | runs | mean | std | min | max |\n|---|---|---|---|---|---|---|")
    for pair, turned in itertools.product(SEEN + UNSEEN, (False, True)):
        task = write_groups(pair)
        labels = pair[::-1] if turned else pair
        template = write_template("sentiment", labels, form=BESIDE)
        asked = ("--template", template, "-k", 8, "--draws", DRAWS, "--data", f"groups/{'-'.join(pair)}")
        name = " / ".join(f"{label} {word}" for label, word in zip(labels, ARBITRARY, strict=False))
        print_methods(name, run("score", task, *asked, *common(model)))


def reasons(_: Path, __: list[str], model: str) -> None:
    """Reasons first against the answer at once."""
    print("| task | template | k | accuracy | 95 % interval | unread |\n|---|---|---|---|---|---|")
    for task in ("word-problems", "reviews"):
        for name in ("plain", "cot"):
            asked = ("--template", f"{FAMILIES[task]}/{name}", "-k", "0,4")
            for cell in run("score", task, *asked, *common(model))["cells"]:
                interval = "–".join(percent(edge) for edge in cell["ci95"])
                print(
                    f"| {task} | {name} | {cell['k']} | {percent(cell['accuracy'])} | {interval} | {cell['unread']} |"
                )


def adapters(data: Path, tasks: list[str], model: str) -> None:
    """LoRA on sets of growing size, three seeds each; last, sentiment under words never seen."""
    print("| task | rows | seeds | mean | std | min | max | seconds per training |\n|---|---|---|---|---|---|---|---|")
    sizes = ",".join(map(str, SIZES))
    for task in (task for task in tasks if FAMILIES[task] in LABELS):
        train(task, task, f"{FAMILIES[task]}/plain", sizes, data, model)
    if "sst2" in tasks:
        train("sst2 (zip, nop)", "sst2", write_template("sentiment", LABELS["sentiment"]), sizes, data, model)


def train(name: str, task: str, template: str, sizes: str, data: Path, model: str) -> None:
    """One comparison of LoRA alone, and a line per size."""
    asked = ("--methods", "lora", "--template", template, "--train-sizes", sizes, "--epochs", 3)
    result = run("compare", task, *source(data, task), *asked, *common(model))
    for method in result["methods"]:
        seconds = method["train_cost"]["seconds"]
        print(f"| {name} | {method['train_rows']} | {figures(method)} | {seconds:.0f} |", flush=True)


def common(model: str) -> tuple[Any, ...]:
    """The options that every command has."""
    return ("--limit", ITEMS, "--model", model, "--json")


def source(data: Path, task: str) -> tuple[Any, ...]:
    """Where the task's records are: a folder of the data, or its own generator."""
    return ("--data", data / task) if (data / task).exists() else ()


PLAIN = """{{% import "{family}/plain.jinja" as plain %}}
{{% set input = plain.input %}}
{{% set target = plain.target %}}
"""
BESIDE = """{{% set separator = "\\n" %}}
{{% macro input(text) %}}- {{{{ text }}}}{{% endmacro %}}
{{% macro target(label) %}} {{{{ label }}}}{{% endmacro %}}
"""


def write_template(family: str, labels: tuple[str, ...], form: str = PLAIN) -> str:
    """Write a template of this family without instruction, its labels arbitrary words; return its name."""
    name = f"arbitrary/{'-'.join((family, *labels)).replace(':', '')}"
    path = Path("templates") / f"{name}.jinja"
    path.parent.mkdir(parents=True, exist_ok=True)
    chosen = json.dumps(dict(zip(labels, ARBITRARY, strict=False)))
    said = f"{{# Labels that mean nothing. #}}\n{{% set labels = {chosen} %}}\n"
    path.write_text(said + form.format(family=family), encoding="utf-8")
    return name


def write_groups(pair: tuple[str, str]) -> str:
    """Write a task of two word groups and its data; return the task file."""
    from promptkit.generate import generate

    folder = Path("groups") / "-".join(pair)
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", 3000), ("test", 3000)):
        found = [row for row in generate("word-groups", split, count, seed=7) if row["label"] in pair]
        rows = [{**row, "text": str(row["text"]).split(",")[0]} for row in found]
        rows = [row for row in rows if (sum(row["text"].encode()) % 2 == 0) == (split == "train")]  # words in one only
        random.Random(0).shuffle(rows)
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    path = folder.with_suffix(".toml")
    path.write_text(
        f'description = "two word groups"\nlabels = {json.dumps(pair)}\ntemplates = "sentiment"\n'
        '[fields]\ntext = "text"\nlabel = "label"\n[data]\ngenerator = "word-groups"\n',
        encoding="utf-8",
    )
    return str(path)


def run(*arguments: Any) -> dict[str, Any]:
    """Run a promptkit command; its object."""
    command = ["promptkit", *map(str, arguments)]
    print(f"<!-- {' '.join(command)} -->", file=sys.stderr, flush=True)
    done = subprocess.run(
        [Path(sys.executable).with_name("promptkit"), *command[1:]], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def print_methods(name: str, result: dict[str, Any]) -> None:
    """A line per number of demonstrations."""
    for method in result["methods"]:
        print(f"| {name} | {method['k']} | {figures(method)} |", flush=True)


def figures(method: dict[str, Any]) -> str:
    """Runs, mean, standard deviation, minimum and maximum in percent."""
    accuracy = method["accuracy"]
    spread = [percent(accuracy[key]) for key in ("mean", "std", "min", "max")]
    return " | ".join([str(method["runs"]), *spread])


def percent(share: float | None) -> str:
    """A share in percent."""
    return "–" if share is None else f"{100 * share:.1f}"


if __name__ == "__main__":
    main()
