"""Worker processes end with the process that started them, and a killed one is a line of error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from promptkit.errors import PromptkitError
from promptkit.storage.workers import worker_pool

STARTED = """
import os, time
from promptkit.storage.workers import worker_pool

if __name__ == "__main__":
    with worker_pool(2) as pool:
        for part in [pool.submit(time.sleep, 0.5) for _ in range(2)]:
            part.result()
        print(*pool._processes, flush=True)
        list(pool.map(time.sleep, [600, 600]))
"""
CHILD = """
import sys, time
from promptkit.storage import workers

workers._ask_for_signal = lambda: None
workers.end_with_parent(int(sys.argv[1]))
print("here", flush=True)
time.sleep(600)
"""
PARENT = """
import os, subprocess, sys

child = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


def is_alive(process: int) -> bool:
    """Say whether a process runs; one that ended and that nobody waits for does not."""
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def wait_until_gone(processes: list[int], seconds: float = 15.0) -> list[int]:
    """Return those of the processes that are still there after this time."""
    end = time.monotonic() + seconds
    while (left := [process for process in processes if is_alive(process)]) and time.monotonic() < end:
        time.sleep(0.1)
    return left


linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")


def environment() -> dict[str, str]:
    """Return the environment in which this promptkit is imported."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


@linux
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """After kill -9 of the parent no worker goes on, nor the process that keeps track of what they share."""
    script = tmp_path / "started.py"
    script.write_text(STARTED)
    with subprocess.Popen([sys.executable, str(script)], env=environment(), stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        workers = [int(each) for each in parent.stdout.readline().split()]
        listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent.pid)], capture_output=True, text=True)
        children = [int(each) for each in listed.stdout.split()]
        assert len(workers) == 2
        assert set(workers) <= set(children)
        assert all(map(is_alive, workers))
        parent.send_signal(signal.SIGKILL)
    assert wait_until_gone([*workers, *children]) == []


@linux
def test_without_a_signal_a_thread_watches_the_parent() -> None:
    """Where the system sends no signal, a process that another one takes over ends all the same."""
    command = [sys.executable, "-c", PARENT, CHILD]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        assert is_alive(child)
        parent.send_signal(signal.SIGKILL)
    assert wait_until_gone([child]) == []


def test_a_worker_that_is_killed_is_one_line() -> None:
    """A worker that the system kills is named for what it is, and the others do not go on."""
    with pytest.raises(PromptkitError, match="a worker process was killed"), worker_pool(1) as pool:
        pool.submit(os.kill, pool.submit(os.getpid).result(), signal.SIGKILL).result()
