"""Small runs of every verb that computes, held equal to the figures that were written down.

`python -m tests.test_golden_results` writes them anew, after a change that is meant to change figures.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import promptkit as pk
from promptkit.__main__ import main as started

GOLDEN = Path(__file__).parent / "golden"
REVIEWS = "reviews --model tiny --train-limit 48"
COMMANDS = {
    "compare": [f"compare {REVIEWS} --limit 16 -k 2 --draws 2 --seeds 2 --epochs 1 --json"],
    "study": [
        f"study {REVIEWS} --limit 12 -k 1,2 --template sentiment/plain --template sentiment/terse --draws 2 --json"
    ],
    "score": [f"score {REVIEWS} --limit 16 -k 2 --calibrate all --json"],
    "predict": [
        f"train {REVIEWS} --epochs 1 --out adapter",
        "predict asked.jsonl --adapter adapter --out said.jsonl",
    ],
    "build": ["build reviews --limit 20 -k 2 --out pairs.jsonl"],
}
WRITTEN = {"predict": "said.jsonl", "build": "pairs.jsonl"}
UNEQUAL = {"seconds", "peak_memory_bytes", "run", "figures", "seconds_per_item", "items_per_second", "train_seconds"}


def ran(name: str, folder: Path) -> Any:
    """Run the commands of a golden result in a folder; return what the last one printed or wrote, without timings."""
    with contextlib.chdir(folder):
        asked = pk.load_records(pk.load_task("reviews"), "test", limit=12)
        Path("asked.jsonl").write_text("".join(json.dumps({"text": record.fields["text"]}) + "\n" for record in asked))
        for line in COMMANDS[name]:
            printed = _command(line)
        if name in WRITTEN:
            return [json.loads(line) for line in Path(WRITTEN[name]).read_text().splitlines()]
        return without(json.loads(printed))


def _command(line: str) -> str:
    """Run one command line in this process; return what it printed."""
    printed = io.TextIOWrapper(io.BytesIO(), write_through=True)
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(io.StringIO()) as said,
    ):
        patch.setattr(sys, "argv", ["promptkit", *line.split()])
        code = 0
        try:
            started()
        except SystemExit as ended:
            code = int(ended.code or 0)
    assert code == 0, said.getvalue()
    printed.seek(0)
    return printed.read()


def without(value: Any) -> Any:
    """Return a result without the keys whose values differ from machine to machine."""
    if isinstance(value, dict):
        return {key: without(inner) for key, inner in value.items() if key not in UNEQUAL}
    return [without(inner) for inner in value] if isinstance(value, list) else value


def differences(found: Any, golden: Any, where: str = "") -> Iterator[str]:
    """Yield where two results differ; numbers may by what another processor rounds otherwise."""
    if isinstance(found, dict) and isinstance(golden, dict):
        for key in found.keys() | golden.keys():
            yield from differences(found.get(key), golden.get(key), f"{where}.{key}")
    elif isinstance(found, list) and isinstance(golden, list) and len(found) == len(golden):
        for index, pair in enumerate(zip(found, golden, strict=True)):
            yield from differences(*pair, f"{where}[{index}]")
    elif isinstance(found, float) and isinstance(golden, float | int):
        if not math.isclose(found, golden, rel_tol=1e-3, abs_tol=1e-4):
            yield f"{where}: {found}, was {golden}"
    elif found != golden:
        yield f"{where}: {found!r}, was {golden!r}"


@pytest.mark.parametrize("name", COMMANDS)
def test_figures_are_what_they_were(name: str, tmp_path: Path) -> None:
    """No figure, prediction, prompt or pair differs from what was written down."""
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    assert list(differences(ran(name, tmp_path), golden)) == []


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    for wanted in sys.argv[1:] or COMMANDS:
        with tempfile.TemporaryDirectory() as scratch:
            text = json.dumps(ran(wanted, Path(scratch)), indent=1, ensure_ascii=False) + "\n"
        (GOLDEN / f"{wanted}.json").write_text(text)
