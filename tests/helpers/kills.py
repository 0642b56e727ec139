"""Kill verbs at random moments, give the same command again, and compare what is there with an undisturbed run's.

python -m tests.helpers.kills                       # 100 kills; prints what went wrong, exits with 1 then
python -m tests.helpers.kills --seed 7 --count 500  # others, more
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.helpers.bad_input_runs import hash_files, prepare, run_words

#: Every verb that writes.
COMMANDS = (
    "score tickets --model net --limit 4 -k 1,2 --draws 3 --out o",
    "compare tickets --model net --seeds 1 --epochs 1 --train-limit 8 --draws 2 -k 1 --limit 3 --out o",
    "study tickets --model net --limit 3 -k 1 --draws 2 --orders 1 --workers 1 --out o",
    "train tickets --model net --train-limit 12 --epochs 3 --batch-size 4 --out o",
    "predict new.csv --adapter ad --out o.jsonl",
    "predict new.parquet --adapter ad --out o.parquet",
    "merge ad --out o",
    "build tickets --as pairs --epochs 400 --out o.jsonl",
    "build tickets --as pairs --epochs 200 --shards 3 --out o",
    "build tickets --as prompts -k 2 --out o.parquet",
    "report run --out o",
)
#: What holds seconds, dates, or pictures of them: it has to be there, and may differ.
_MOMENT = re.compile(
    r"(^|/)measures/|o/[^/]*\.(json|md|html|svg|png|pdf|csv|tex|parquet)$|o/figures/|o/promptkit\.json$"
)


def kill(command: str, project: Path, folder: Path, moments: list[float]) -> None:
    """Run a command in a copy of the project, killed after each of these seconds, and then once undisturbed."""
    shutil.copytree(project, folder, symlinks=True)
    for moment in moments:
        run_words(command.split(), folder, kill_after=moment)
    outcome = run_words(command.split(), folder)
    done = outcome.code == 1 and "exists already" in outcome.err  # the kill came when all was done
    assert outcome.code == 0 or done, f"exit code {outcome.code}: {outcome.err[-500:]}"


def compare(wanted: dict[str, str], found: dict[str, str]) -> list[str]:
    """Return what is missing, left over or different after kills, beside what an undisturbed run leaves."""
    different = [
        name for name in wanted.keys() & found.keys() if wanted[name] != found[name] and not _MOMENT.search(name)
    ]
    return [
        *(f"{name} is missing" for name in sorted(wanted.keys() - found.keys())),
        *(f"{name} was left" for name in sorted(found.keys() - wanted.keys())),
        *(f"{name} differs" for name in sorted(different)),
    ]


def main() -> int:
    """Kill many runs; print those that ended otherwise than an undisturbed one, and how many there were."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kills-") as scratch:
        faults = _kill_all(Path(scratch), given.seed, given.count)
    print(f"{given.count - faults} passed, {faults} failed")
    return int(bool(faults))


def _kill_all(scratch: Path, seed: int, count: int) -> int:
    project, draw, faults = scratch / "project", random.Random(f"kills {seed}"), 0
    prepare(project)
    wanted: dict[str, dict[str, str]] = {}
    seconds: dict[str, float] = {}
    for number in range(count):
        command = COMMANDS[number % len(COMMANDS)]
        if command not in wanted:
            begun = time.monotonic()
            kill(command, project, scratch / "undisturbed", [])
            seconds[command] = time.monotonic() - begun
            wanted[command] = hash_files(scratch / "undisturbed")
            shutil.rmtree(scratch / "undisturbed")
        moments = [draw.uniform(0, seconds[command]) for _ in range(draw.choice([1, 1, 2, 3]))]
        folder = scratch / "killed"
        try:
            kill(command, project, folder, moments)
            wrong = compare(wanted[command], hash_files(folder))
        except AssertionError as error:
            wrong = [str(error)]
        shutil.rmtree(folder)
        if wrong:
            after = ", ".join(f"{moment:.2f}" for moment in moments)
            print(f"{number}: promptkit {command}: killed after {after} s: {'; '.join(wrong[:5])}", flush=True)
        faults += bool(wrong)
    return faults


if __name__ == "__main__":
    sys.exit(main())
