"""Run bad inputs through the command line, each in a process of its own, and judge what came of it.

    python -m tests.helpers.bad_input_runs                  # 1,500 inputs; prints what went wrong, exits with 1 then
    python -m tests.helpers.bad_input_runs --seed 7 --count 5000  # others, more
    python -m tests.helpers.bad_input_runs --only 123 --keep      # one again, its folder kept

torch is imported once; every input runs in a fork of that process.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.bad_inputs import COMMANDS, COMPARE, BadInput, make_bad_input

#: Limits of one input: seconds of CPU, seconds without computing anything, bytes beyond what the imports take.
CPU_SECONDS, IDLE_SECONDS, MEMORY = 20, 20, 10**9
#: Lines on stderr that may stand beside the one line of an error.
_BESIDE = re.compile(r"promptkit: warning: |note: |[\w ]+: [\d,]+ of |[\d,]+ (rows|records|pairs|of) |\s*$")
_TICKETS = """\
description = "Customers' messages by the desk that answers them"
labels = ["billing", "technical"]
templates = "tickets"

[fields]
text = "message"
label = "desk"

[data]
path = "tickets"
train = "train"
test = "test"
"""
_QUIZ = (
    _TICKETS.replace('labels = ["billing", "technical"]\n', "")
    .replace("tickets", "quiz")
    .replace('text = "message"\nlabel = "desk"', 'question = "question"\nchoices = "choices"\nlabel = "answer"')
)
_SUMS = _QUIZ.replace("quiz", "sums").replace('choices = "choices"\n', "")
_PLAIN = "{# Short. #}\n{% macro input(text) %}\nMessage: {{ text }}\nDesk:\n{%- endmacro %}\n\n"
_TARGET = "{% macro target(label) %} {{ label }}{% endmacro %}\n"
_CHOICES = _PLAIN.replace("text", "question, choices").replace(
    "{{ question, choices }}", "{{ question }} {{ choices[0] }}"
)
_ASKED = "{% set answer = '([a-z]+)' %}\n{% set stop = ['\\n'] %}\n" + _PLAIN.replace("text", "question")
_SET_UP = (
    "train tickets --model net --train-limit 8 --epochs 1 --out ad",
    f"{COMPARE} --out run",
    "study tickets --model net --preset preset.toml --limit 2 --out studied",
    "build tickets --as pairs --out set.jsonl",
)


@dataclass(frozen=True)
class Outcome:
    """What one input came to: exit code (negative: a signal), CPU seconds, bytes beyond the imports, both streams."""

    code: int
    seconds: float
    memory: int
    out: str
    err: str


def make_project(root: Path) -> None:
    """Write a small project that every verb can be tried on: tasks, templates, data, a model, an adapter, two runs."""
    from tests.helpers.training_fakes import model, saved

    def write(name: str, text: str) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    desks = ("billing", "technical")
    messages = [
        (f"message {number} about {'money' if number % 2 else 'a crash'}", desks[number % 2 == 0])
        for number in range(24)
    ]
    write("tasks/tickets.toml", _TICKETS)
    write("tasks/quiz.toml", _QUIZ)
    write("tasks/sums.toml", _SUMS)
    write("templates/tickets/plain.jinja", _PLAIN + _TARGET)
    write("templates/quiz/plain.jinja", _CHOICES + _TARGET)
    write("templates/sums/plain.jinja", _ASKED + _TARGET)
    for name, part in (("train", messages[:16]), ("test", messages[16:])):
        write(f"tasks/tickets/{name}.csv", "message,desk\n" + "".join(f"{text},{desk}\n" for text, desk in part))
    quiz = [
        {"question": f"which {number}?", "choices": ["red", "blue", "green"], "answer": number % 3}
        for number in range(6)
    ]
    sums = [{"question": f"what is {number}?", "answer": f"it {number}"} for number in range(6)]
    turns = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": desk}]}
        for text, desk in messages
    ]
    rows = [{"prompt": f"{text} ->", "choices": [" billing", " technical"], "label": 0} for text, _ in messages[:4]]
    pairs = [{"prompt": f"{text} ->", "completion": f" {desk}"} for text, desk in messages[:6]]
    new = [{"message": text} for text, _ in messages[:5]]
    for name, each in (
        ("tasks/quiz/train", quiz),
        ("tasks/quiz/test", quiz),
        ("tasks/sums/train", sums),
        ("tasks/sums/test", sums),
    ):
        write(f"{name}.jsonl", "".join(f"{json.dumps(row)}\n" for row in each))
    for name, each in (("rows", rows), ("pairs", pairs), ("chat", turns[:4]), ("new", new)):
        write(f"{name}.jsonl", "".join(f"{json.dumps(row)}\n" for row in each))
    write("new.csv", "message\n" + "".join(f"{row['message']}\n" for row in new))
    write("prices.toml", 'currency = "EUR"\n[local]\nhour = 1.0\n')
    write("preset.toml", 'methods = ["few-shot"]\nshots = [1]\ndraws = 2\norders = ["given"]\n')
    write("mixture.toml", "[tasks.tickets]\nweight = 2\n\n[tasks.quiz]\nweight = 1\n")
    write("keep.txt", "mine\n")
    write("keep/thesis.tex", "mine\n")
    write("mine.part/thesis.tex", "mine\n")
    write("mine.jsonl.part/notes.txt", "mine\n")
    write(".o.jsonl.00000000.1.0.tmp", "mine\n")
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(new), root / "new.parquet")
    saved(model(window=200), root / "net")


def run_words(words: Sequence[str], root: Path, kill_after: float = math.inf) -> Outcome:
    """Run one command line in a fork of this process, in the folder `root`; kill it after so many seconds."""
    streams = root.with_name(f"{root.name}.out"), root.with_name(f"{root.name}.err")
    child = os.fork()
    if child == 0:
        _become_promptkit(words, root, *streams)
    begun = time.monotonic()
    computed, since, usage = 0.0, begun, None
    base = _resident(os.getpid())
    while usage is None:
        done, status, found = os.wait4(child, os.WNOHANG)
        if done:
            usage = found
            continue
        if (seconds := _computed(child)) != computed:  # a busy machine is slow, but does not stand still
            computed, since = seconds, time.monotonic()
        now = time.monotonic()
        if now - since > IDLE_SECONDS or now - begun > kill_after or _resident(child) > base + 2 * MEMORY:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    out, err = (path.read_bytes().decode("utf-8", "replace") for path in streams)
    seconds = usage.ru_utime + usage.ru_stime
    return Outcome(os.waitstatus_to_exitcode(status), seconds, max(0, usage.ru_maxrss * 1024 - base), out, err)


def _become_promptkit(words: Sequence[str], root: Path, out: Path, err: Path) -> None:
    """Run the command line in this fork, and end it."""
    code = 70
    try:
        os.chdir(root)
        for number, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        sys.argv = ["promptkit", *words]
        tempfile.tempdir = str(root)
        from promptkit.cli import main

        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _resident(process: int) -> int:
    """Return the bytes of memory that a process holds, 0 for one that is gone."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


def _computed(process: int) -> float:
    """Return the seconds of CPU that a process has taken, 0 for one that is gone."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def judge(outcome: Outcome, words: Sequence[str], before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return what is wrong with an outcome, given hashes of the project's files before and after; or nothing."""
    wrong = []
    if outcome.code not in (0, 1, 2):
        wrong.append(f"exit code {outcome.code}")
    if "Traceback (most recent call last)" in outcome.err:
        wrong.append("traceback")
    if outcome.seconds > CPU_SECONDS:
        wrong.append(f"{outcome.seconds:.0f} s")
    if outcome.memory > MEMORY:
        wrong.append(f"{outcome.memory / 1e9:.1f} GB")
    lines = [line for line in outcome.err.splitlines() if not _BESIDE.match(line)]
    if outcome.code == 1 and len(lines) != 1 and words[0] not in ("lint", "list"):
        wrong.append(f"{len(lines)} lines on stderr")
    if "\x1b" in outcome.err + outcome.out:
        wrong.append("an escape sequence")
    wrong += [f"{name} is gone" for name in before.keys() - after.keys() if not _may_change(name)]
    wrong += [
        f"{name} was changed"
        for name in before.keys() & after.keys()
        if before[name] != after[name] and not _may_change(name)
    ]
    if outcome.code in (1, 2):
        hidden = [name for name in after.keys() - before.keys() if re.search(r"(^|/)\.|\.tmp$", name)]
        wrong += [f"{name} was left" for name in hidden]
    return wrong


def _may_change(name: str) -> bool:
    """Whether a run may write this file anew: what a run's own verbs make of its cells."""
    return bool(re.match(r"(run|studied)/", name)) and not re.search(r"/(cells|measures|adapters)/|/run\.json", name)


def hash_files(root: Path) -> dict[str, str]:
    """Return the name of everything below `root` with the hash of what it holds; links and pipes are not followed."""
    found = {}
    for path in sorted(root.rglob("*")):
        kind = "link" if path.is_symlink() else "file" if path.is_file() else "other"
        content = path.read_bytes() if kind == "file" else b""
        found[str(path.relative_to(root))] = kind + hashlib.sha256(content).hexdigest()
    return found


def try_input(bad: BadInput, project: Path, folder: Path) -> tuple[Outcome, list[str]]:
    """Break a copy of the project in `folder`, run the command line there, and return what came of it and is wrong."""
    shutil.copytree(project, folder, symlinks=True)
    bad.spoil(folder)
    before = hash_files(folder)
    outcome = run_words(bad.words, folder)
    return outcome, judge(outcome, bad.words, before, hash_files(folder))


def main() -> int:
    """Run many inputs; print those that went wrong, and how many there were."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1500)
    parser.add_argument("--only", type=int, help="the number of one input")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--keep", action="store_true", help="keep the folders of what went wrong")
    given = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="bad-inputs-"))
    project = scratch / "project"
    prepare(project)
    numbers = [given.only] if given.only is not None else range(given.count)
    faults = 0

    def run(number: int) -> tuple[int, BadInput, Outcome, list[str]]:
        bad = make_bad_input(given.seed, number)
        outcome, wrong = try_input(bad, project, scratch / str(number))
        if not (given.keep and (wrong or given.only is not None)):
            shutil.rmtree(scratch / str(number), ignore_errors=True)
        return number, bad, outcome, wrong

    with ThreadPoolExecutor(given.jobs) as threads:
        for number, bad, outcome, wrong in threads.map(run, numbers):
            if wrong or given.only is not None:
                print(f"{number}: {bad.what}: promptkit {' '.join(bad.words):.200}\n    {'; '.join(wrong)}")
                print(*(f"    | {line[:300]}" for line in outcome.err.splitlines()[-4:]), sep="\n", flush=True)
            faults += bool(wrong)
    print(f"{len(numbers) - faults} passed, {faults} failed")
    if not given.keep:
        shutil.rmtree(scratch, ignore_errors=True)
    return int(bool(faults))


def prepare(project: Path) -> None:
    """Write the project, import what the verbs import, and run the verbs that others start from."""
    import datasets  # noqa: F401 - imported once, before the forks
    import peft  # noqa: F401

    make_project(project)
    for line in _SET_UP:
        outcome = run_words(line.split(), project)
        assert outcome.code == 0, f"{line}: {outcome.err}"
    for pattern in {pattern for patterns in COMMANDS.values() for pattern in patterns}:
        assert any(project.glob(pattern)), f"the project has no {pattern}"


if __name__ == "__main__":
    sys.exit(main())
