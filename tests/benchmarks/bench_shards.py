"""Measure the peak memory of writing a set: `bench_shards.py ROWS parquet|jsonl|folder`; run by hand."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

from promptkit.export.shards import write_folder, write_shards

SHARDS = 8


def main(count: int, way: str) -> None:
    """Write `count` rows of some 580 bytes into eight files, and print what it took."""
    rows = (
        {
            "id": str(number),
            "prompt": f"{number} " + "a review of a film " * 25,
            "completion": " positive",
            "label": number % 2,
            "choices": [" negative", " positive"],
        }
        for number in range(count)
    )
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "set"
        if way == "folder":
            write_folder(rows, path, split="train", shards=SHARDS)
        else:
            write_shards(rows, path / f"train.{way}", shards=SHARDS)
        size = sum(file.stat().st_size for file in path.iterdir()) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{way}, {count:,} rows: {size:.0f} MB, {peak:.0f} MiB at peak, {time.process_time() - started:.1f} CPU s")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
