"""The figures of the embedded model's card, every one from a promptkit command that is printed beside it.

    python tests/benchmarks/bench_tiny.py --data DIR [--parts zero,prompts,words,groups,cot,lora,gains] [--tasks sst2,…]

DIR holds one folder of JSONL splits per data set. Runs, adapters and answers are kept under `runs/` of the working
directory, so what was measured once is not measured again, and a killed benchmark goes on where it was. Prints
Markdown tables.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import random
import resource
import statistics
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

NEW_WORDS = (("zip", "nop"), ("nop", "zip"), ("river", "stone"))
"""Words for negative and positive, one pair of them both ways round: what a single pair gives is half accident."""

ROWS = 1000
TESTED = 1000
SEEDS = (0, 1, 2)
"""Of the gains by one thousand rows: training records, test records at most, and seeds of records and training."""


def main() -> None:
    """Measure the parts asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--tasks", default=",".join(FAMILIES))
    parser.add_argument("--model", default="tiny")
    given = parser.parse_args()
    data, tasks = given.data.resolve(), given.tasks.split(",")
    for part in given.parts.split(","):
        PARTS[part](data, tasks, given.model)


def zero(data: Path, tasks: list[str], model: str) -> None:
    """Zero-shot, on twice as many records."""
    print("| task | accuracy | 95 % interval |\n|---|---|---|")
    for task in tasks:
        result = run("score", task, *source(data, task), "--limit", 2 * ITEMS, "--model", model, "--json")
        (cell,) = result["cells"]
        print(f"| {task} | {percent(cell['accuracy'])} | {'–'.join(map(percent, cell['ci95']))} |", flush=True)


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
    """LoRA on sets of growing size, three seeds each."""
    print("| task | rows | seeds | mean | std | min | max | seconds per training |\n|---|---|---|---|---|---|---|---|")
    sizes = ",".join(map(str, SIZES))
    for task in tasks:
        asked = ("--methods", "lora", "--template", f"{FAMILIES[task]}/plain", "--train-sizes", sizes)
        for method in run("compare", task, *source(data, task), *asked, *common(model))["methods"]:
            seconds = method["train_cost"]["seconds"]
            print(f"| {task} | {method['train_rows']} | {figures(method)} | {seconds:.0f} |", flush=True)


def gains(data: Path, tasks: list[str], model: str) -> None:
    """What one thousand records bring on tasks, and under label words, that are new to the model."""
    print("| task | zero-shot | adapters, by seed | mean gain | CPU seconds per training |\n|---|---|---|---|---|")
    sentiment = LABELS["sentiment"]
    if "reviews" in tasks:
        print_gain("reviews", "reviews", "sentiment/plain", data, model)
    if "mpqa" in tasks:
        print_gain("mpqa, records as they come", "mpqa", "sentiment/plain", data, model)
        print_gain("mpqa, as many of each label", "mpqa", "sentiment/plain", data, model, balance=True)
    for pair in NEW_WORDS if "sst2" in tasks else ():
        template = write_template("sentiment", sentiment, form=ASKED, words=pair)
        print_gain(f"sst2, `{pair[0]}` and `{pair[1]}`", "sst2", template, data, model)


def print_gain(name: str, task: str, template: str, data: Path, model: str, *, balance: bool = False) -> None:
    """A line: the accuracy without and with an adapter, on the same records."""
    asked = ("--template", template, *source(data, task), "--limit", TESTED, "--json")
    before = keep("score", task, *asked, "--model", model)["cells"][0]["accuracy"]
    after, seconds = [], []
    for seed in SEEDS:
        trained = train(task, template, data, model, seed, balance=balance)
        seconds.append(trained["cpu_seconds"])
        after.append(keep("score", task, *asked, "--model", trained["adapter"])["cells"][0]["accuracy"])
    gain = f"{100 * (statistics.fmean(after) - before):+.1f}"
    took = ", ".join(f"{each:.0f}" for each in seconds)
    print(f"| {name} | {percent(before)} | {', '.join(map(percent, after))} | {gain} | {took} |", flush=True)


def train(task: str, template: str, data: Path, model: str, seed: int, *, balance: bool) -> dict[str, Any]:
    """Train one adapter with the defaults on ROWS records that the seed draws, as they come or balanced."""
    name = f"{task}-{template.replace('/', '-')}-{'balanced' if balance else 'natural'}-seed{seed}"
    folder = Path("runs") / "gains" / f"{name}-{digest(model, ROWS)}"
    asked = ("--template", template, *source(data, task), "--seed", seed)
    chosen = ("--model", model, "--out", folder, "--json")
    if not balance:
        return keep("train", task, *asked, "--train-limit", ROWS, *chosen)
    rows = folder.with_suffix(".jsonl")
    if not rows.exists():
        run("build", task, "--as", "pairs", *asked, "--balance", "--limit", ROWS, "--out", rows, "--json")
    return keep("train", rows, "--seed", seed, *chosen)


def keep(*arguments: Any) -> dict[str, Any]:
    """Run a promptkit command, or give its object of an earlier time; `cpu_seconds` are of the whole command."""
    path = Path("runs") / "gains" / f"{arguments[0]}-{digest(*arguments)}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = run(*arguments)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        result["cpu_seconds"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        path.write_text(json.dumps({"command": [str(each) for each in arguments], **result}), encoding="utf-8")
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return kept


def digest(*parts: Any) -> str:
    """A name for what is run: its words, and the embedded model's weights."""
    import promptkit

    weights = Path(promptkit.__file__).parent / "models" / "tiny" / "model.safetensors"
    return hashlib.sha256("\n".join(map(str, parts)).encode() + weights.read_bytes()).hexdigest()[:12]


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
ASKED = """{{% import "{family}/plain.jinja" as plain %}}
{{% set instruction = plain.instruction %}}
{{% set input = plain.input %}}
{{% set target = plain.target %}}
"""
BESIDE = """{{% set separator = "\\n" %}}
{{% macro input(text) %}}- {{{{ text }}}}{{% endmacro %}}
{{% macro target(label) %}} {{{{ label }}}}{{% endmacro %}}
"""


def write_template(family: str, labels: tuple[str, ...], form: str = PLAIN, words: tuple[str, ...] = ARBITRARY) -> str:
    """Write a template of this family and form, its labels arbitrary words; return its name."""
    said = words if words != ARBITRARY else ()
    name = f"arbitrary/{'-'.join((family, *labels, *said)).replace(':', '')}"
    path = Path("templates") / f"{name}.jinja"
    path.parent.mkdir(parents=True, exist_ok=True)
    chosen = json.dumps(dict(zip(labels, words, strict=False)))
    opening = f"{{# Labels that mean nothing. #}}\n{{% set labels = {chosen} %}}\n"
    path.write_text(opening + form.format(family=family), encoding="utf-8")
    return name


def write_groups(pair: tuple[str, str]) -> str:
    """Write a task of two word groups and its data; return the task file."""
    from promptkit.data.generate import generate

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


PARTS = {
    "zero": zero,
    "prompts": prompts,
    "words": words,
    "groups": groups,
    "cot": reasons,
    "lora": adapters,
    "gains": gains,
}

if __name__ == "__main__":
    main()
