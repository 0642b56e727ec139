"""No text from a file reaches a terminal as a command."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.text import Text

from promptkit.cli.main import cli
from promptkit.report.terminal import PICTURES, guard_streams, make_console, make_visible

HOSTILE = "\x1b]0;PWNED\x07\x1b[2J\x9b31m\x7f\u202eright\u2066\u2028\r\b"


def is_safe(text: str) -> bool:
    """Whether nothing in a text is a command to a terminal."""
    return not any(ord(sign) in PICTURES for sign in text)


def test_every_command_has_a_picture() -> None:
    """C0 but tabs and line ends, DEL, C1, signs that turn the direction, and halves of characters."""
    assert make_visible(HOSTILE) == "␛]0;PWNED␇␛[2J\ufffd31m␡\ufffdright\ufffd␤␍␈"
    assert make_visible("a\tb\nc é 漢 🙂 \u200f") == "a\tb\nc é 漢 🙂 \u200f"
    assert make_visible("\ud800") == "\ufffd"


def test_streams_show_commands_as_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is printed passes through; a line that a progress bar writes over itself may."""
    out, error = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", error)
    guard_streams()
    guard_streams()
    print(HOSTILE, end="\n\r10 %")
    print("\x1b[2J", file=sys.stderr)
    make_console(stderr=True).print(Text("\x1b[2J", style="bold"))
    for stream, wanted in ((out, "␛]0;PWNED␇␛[2J\ufffd31m␡\ufffdright\ufffd␤␍␈\n␍10 %"), (error, "␛[2J\n␛[2J\n")):
        stream.flush()
        assert stream.buffer.getvalue().decode() == wanted  # type: ignore[attr-defined]


def write_project(folder: Path) -> None:
    """Write a task, a template and data whose every text is hostile."""
    (folder / "tasks").mkdir()
    (folder / "templates" / "evil").mkdir(parents=True)
    quoted = json.dumps(HOSTILE)
    (folder / "tasks" / "evil.toml").write_text(
        f"description = {quoted}\ntemplates = 'evil'\nlabels = ['a', 'b']\n[fields]\ntext = 'text'\nlabel = 'label'\n"
        "[data]\npath = 'evil'\ntrain = 'train'\ntest = 'test'\n"
    )
    (folder / "templates" / "evil" / "plain.jinja").write_text(
        "{# \x1b]0;PWNED\x07 #}\n{% macro input(text) %}{{ text }}\x1b[2J:{% endmacro %}\n"
        "{% macro target(label) %} {{ label }}{% endmacro %}\n"
    )
    (folder / "templates" / "evil" / "\x1b[2Jbad.jinja").write_text("{% macro")
    row = json.dumps({"id": HOSTILE, "text": HOSTILE, "label": "a"})
    (folder / "evil.jsonl").write_text(f"{row}\n{row}\n")
    (folder / "bad.jsonl").write_text(json.dumps({"id": HOSTILE, "text": HOSTILE, "label": HOSTILE}) + "\n")


LINES = [
    "list",
    "list tasks",
    "list templates",
    "lint",
    "show evil --data evil.jsonl --split train",
    "show evil --data evil.jsonl --split train --json",
    "build evil --data bad.jsonl",
    "build evil --data evil.jsonl --split train",
    "score evil --data evil.jsonl",
    "show \x1b[2J",
    "show evil --template \x1b[2Jx",
    "build evil --data \x1b[2Jx",
    "build evil --\x1b[2Jx",
]


@pytest.mark.parametrize("line", LINES)
def test_no_verb_passes_a_command_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    """Descriptions, names, records, prompts, labels and errors: nothing of them is a command."""
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    if line.startswith("build evil --data evil"):
        pytest.skip("rows on a stream that is no terminal are data")
    result = CliRunner().invoke(cli, line.split(" "))
    assert is_safe(result.stdout) or "--json" in line
    assert is_safe(result.stderr)


@pytest.mark.parametrize("line", LINES[:1] + LINES[4:11])
def test_a_terminal_gets_colours_and_no_commands(tmp_path: Path, line: str) -> None:
    """On a real terminal only promptkit's own colours are commands, and JSON is still JSON."""
    write_project(tmp_path)
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "promptkit", *line.split(" ")]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200"}
    process = subprocess.Popen(command, cwd=tmp_path, stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    said = b""
    while True:
        try:
            block = os.read(controller, 4096)
        except OSError:  # the other end is closed
            break
        if not block:
            break
        said += block
    process.wait()
    os.close(controller)
    text = said.decode().replace("\r\n", "\n")
    assert "\x1b]" not in text
    assert "\x1b[2J" not in text
    assert not set(text) & set("\x07\x9b\x7f\u202e\u2066\u2028\b")
    if "--json" in line:
        assert HOSTILE in json.loads(text)["prompts"][0]["id"]
