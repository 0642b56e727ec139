"""Generate bad inputs for every verb: broken files of every kind, hostile files, and wrong options, by a seed."""

from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from promptkit.cli import cli

#: The comparison that the project holds.
COMPARE = "compare tickets --model net --methods zero-shot,few-shot --draws 1 -k 1 --limit 2"
#: Every command line that is broken: a verb, and the files that it reads.
COMMANDS: dict[str, tuple[str, ...]] = {
    "score tickets --model net --limit 2 -k 1 --out o": (
        "tasks/tickets.toml",
        "tasks/tickets/train.csv",
        "tasks/tickets/test.csv",
        "templates/tickets/plain.jinja",
        "net/config.json",
        "net/tokenizer.json",
        "net/tokenizer_config.json",
        "net/generation_config.json",
        "net/model.safetensors",
    ),
    "score tickets --model net --chat --limit 2": ("net/chat_template.jinja", "net/tokenizer_config.json"),
    "score tickets --model ad --limit 2": (
        "ad/adapter_config.json",
        "ad/adapter_model.safetensors",
        "ad/promptkit.json",
    ),
    "score quiz --model net --limit 2 --json": (
        "tasks/quiz.toml",
        "tasks/quiz/test.jsonl",
        "templates/quiz/plain.jinja",
    ),
    "score sums --model net --limit 1": ("tasks/sums.toml", "tasks/sums/test.jsonl", "templates/sums/plain.jinja"),
    "score rows.jsonl --model net --scores": ("rows.jsonl",),
    f"{COMPARE} --prices prices.toml --out run": (
        "prices.toml",
        "run/run.json",
        "run/cells/*.json",
        "run/measures/*.json",
        "tasks/tickets.toml",
        "tasks/tickets/test.csv",
    ),
    "compare tickets --model net --methods lora --seeds 1 --epochs 1 --train-limit 4 --limit 2 --out o": (
        "tasks/tickets/train.csv",
        "net/config.json",
    ),
    "study tickets --model net --preset preset.toml --limit 2 --out studied": (
        "preset.toml",
        "studied/run.json",
        "studied/cells/*.json",
        "studied/study.json",
        "tasks/tickets/train.csv",
    ),
    "train tickets --model net --train-limit 4 --epochs 1 --out t": (
        "tasks/tickets.toml",
        "tasks/tickets/train.csv",
        "templates/tickets/plain.jinja",
        "net/config.json",
        "net/model.safetensors",
    ),
    "train pairs.jsonl --model net --epochs 1 --out t": ("pairs.jsonl",),
    "train pairs.jsonl --model net --epochs 1 --out mine": ("pairs.jsonl",),
    "train chat.jsonl --model net --epochs 1 --out t": ("chat.jsonl", "net/chat_template.jinja"),
    "predict new.csv --adapter ad --out o.jsonl": ("new.csv", "ad/adapter_config.json", "ad/promptkit.json"),
    "predict new.jsonl --adapter ad --out o.jsonl": ("new.jsonl", "ad/adapter_model.safetensors"),
    "predict new.jsonl --adapter ad --out mine.jsonl": ("new.jsonl",),
    "predict new.parquet --adapter ad --out o.parquet": ("new.parquet",),
    "merge ad --out m": ("ad/adapter_config.json", "ad/adapter_model.safetensors", "ad/promptkit.json"),
    "build tickets --as prompts -k 1 --out o.jsonl": ("tasks/tickets.toml", "templates/tickets/plain.jinja"),
    "build tickets --as pairs --data tasks/tickets --out o.parquet": (
        "tasks/tickets/train.csv",
        "tasks/tickets/test.csv",
    ),
    "build quiz --as prompts --data tasks/quiz": ("tasks/quiz/test.jsonl",),
    "build mixture.toml --out o.jsonl": ("mixture.toml", "tasks/tickets/train.csv"),
    "build set.manifest.json --out o.jsonl": ("set.manifest.json",),
    "show tickets --model net -k 1": ("tasks/tickets.toml", "templates/tickets/plain.jinja", "net/tokenizer.json"),
    "lint": ("tasks/tickets.toml", "templates/tickets/plain.jinja", "tasks/quiz.toml"),
    "list": ("tasks/tickets.toml", "templates/tickets/plain.jinja", "preset.toml"),
    "report run": ("run/run.json", "run/compare.json", "run/cells/*.json", "run/measures/*.json"),
    "rerun run --out again": ("run/run.json", "run/sources/tasks/*", "run/sources/templates/*/*", "run/cells/*.json"),
    "rerun studied --out again": ("studied/run.json", "studied/sources/tasks/*", "tasks/tickets/test.csv"),
    "report studied": ("studied/run.json", "studied/study.json", "studied/predictions.parquet", "studied/cells/*.json"),
}
#: Values that options and settings do not expect.
WORDS = (
    *("", " ", "0", "-1", "--5", "nan", "inf", "-inf", "1e400", "0.5", "9" * 5000, "9" * 30, "1,1", ",", "x,", "None"),
    *("null", "true", "..", ".", "/", "/dev/null", "/dev/zero", "/dev/full", "keep.txt/x", "keep.txt", "keep"),
    *("tickets.toml", "tasks/tickets.toml", "net", "ad", "run", "a/b", "*", "[", "(", "\\", "{{ 1/0 }}", "\x1b[2J\x07"),
    *(
        "\u202egnp",
        "é" * 300,
        "a" * 5000,
        "\udcff",
        "\n",
        "all",
        "own",
        "gold",
        "random",
        "10m",
        "1GB",
        "10%",
        "=",
        "a=b",
    ),
)
#: Values that a JSON file does not expect.
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 2**63, 2**70, 0.5, 1e308, "", " ", "x", "\x00", "\x1b[2J", "a" * 100_000, "../x"),
    *([], {}, [[]], [None], {"": ""}, ["x"] * 1000, {"a": {"b": {}}}),
)
#: Pieces of templates that fail, or that ask for more than a template may have.
SNIPPETS = (
    *("{{ 1/0 }}", "{{ text | truncate(2) }}", "{{ nothing }}", "{{ text.upper }}", "{{ text.upper | string }}"),
    *("{{ none | upper }}", "{{ [1, text.upper] }}", "{{ ('\\t' * 30000).expandtabs(100000) | length }}"),
    *("{{ '%99999999d' % 1 }}", "{{ '{:>99999999}'.format(1) }}", "{{ 'x' * 999999999 }}", "{{ range(10**9) | list }}"),
    *("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "{% include 'x' %}", "{%"),
    *("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", "{{ 9 ** 9 ** 9 }}", "{{ text | wordwrap(0) }}"),
    *("{{ text | tojson(indent=99999999) }}", "{{ text.__class__ }}", "{{ text | int / 0 }}", "{{ '\\ud800' }}"),
    *("{% set ns = namespace(x='x' * 99999) %}{% for i in range(40) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",),
    *(
        "{{ text | replace('', 'x' * 99999) }}",
        "{{ (text ~ 'abcd') | center(99999999) }}",
        "{{ '\x1b[2J' }}",
        "{{ {} }}",
    ),
)


@dataclass(frozen=True)
class BadInput:
    """One bad input: a command line, what is broken about it, and the function that breaks the project's files."""

    words: tuple[str, ...]
    what: str
    spoil: Callable[[Path], None]


def make_bad_input(seed: int, number: int) -> BadInput:
    """Return the bad input of a number: the same at every call, on every machine."""
    draw = random.Random(f"{seed}:{number}")
    command = draw.choice(sorted(COMMANDS))
    words = tuple(command.split())
    if draw.random() < 0.35:
        return _spoil_options(words, draw)
    pattern = draw.choice(COMMANDS[command])
    spoil_file = draw.choice([spoil for spoil, endings in SPOILERS.items() if not endings or pattern.endswith(endings)])

    def spoil(root: Path) -> None:
        later = random.Random(f"{seed}:{number}:file")
        spoil_file(later.choice(sorted(root.glob(pattern))), later)

    return BadInput(words, f"{spoil_file.__name__} {pattern}", spoil)


def _spoil_options(words: tuple[str, ...], draw: random.Random) -> BadInput:
    """Give one of the verb's options, or its argument, a value that it does not expect."""
    param = draw.choice([param for param in cli.commands[words[0]].params if param.name != "device"])
    value = draw.choice(WORDS)
    if isinstance(param, click.Option):
        flag = draw.choice([*param.opts, *param.secondary_opts])
        words = (*words, flag) if param.is_flag else (*words, flag, value)
    else:
        words = (words[0], value, *words[2:])
    return BadInput(words, f"option {param.name} = {value!r:.40}", lambda root: None)


# Each of these breaks one file in place.


def empty(path: Path, draw: random.Random) -> None:
    """Leave nothing in it."""
    path.write_bytes(b"")


def truncate(path: Path, draw: random.Random) -> None:
    """Cut it off anywhere."""
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(len(content) + 1)])


def flip_bytes(path: Path, draw: random.Random) -> None:
    """Change a few bytes."""
    content = bytearray(path.read_bytes())
    for _ in range(draw.randint(1, 20)):
        content[draw.randrange(len(content))] = draw.randrange(256)
    path.write_bytes(content)


def replace_text(path: Path, draw: random.Random) -> None:
    """Put something else in its place, as a whole."""
    texts = [
        b"\0" * 1000,
        b"\xff\xfe\x00x",
        b"null",
        b"[]",
        b"{}",
        b"0",
        b'"x"',
        b"\n\n\n",
        b"[" * 50_000,
        b"9" * 10_000,
    ]
    texts += [b'{"a":' * 5000, b"x = " + b"[" * 5000, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"]
    texts += [gzip.compress(b"x" * 100), b"PAR1" + b"\0" * 100 + b"PAR1", b"GGUF\x03" + b"\0" * 40, b"\xef\xbb\xbf"]
    texts += [b'"\\ud800"\n', b"x = nan\n", b'{"a": NaN}\n', b"a" * 3_000_000, b"\x1b]0;x\x07\n", b"\x80" * 50]
    path.write_bytes(draw.choice(texts))


def insert_text(path: Path, draw: random.Random) -> None:
    """Put something between its bytes."""
    content = path.read_bytes()
    at = draw.randrange(len(content) + 1)
    texts = [
        b"\0",
        b"\r",
        b"\n",
        b'"',
        b"\\",
        b"\xc3",
        b"\x1b[31m",
        b"{{",
        b"%}",
        b"[[",
        b",",
        b";",
        b"\t",
        "\u2028".encode(),
    ]
    path.write_bytes(content[:at] + draw.choice(texts) * draw.choice([1, 2, 1000]) + content[at:])


def swap(path: Path, draw: random.Random) -> None:
    """Put another file of the project in its place."""
    others = sorted(each for each in path.parent.rglob("*") if each.is_file() and each != path)
    if others:
        path.write_bytes(draw.choice(others).read_bytes())


def make_odd(path: Path, draw: random.Random) -> None:
    """Put a folder, a named pipe, a device or a link that leads nowhere in its place; or nothing."""
    path.unlink()
    target: dict[str, str] = {"loop": path.name, "zero": "/dev/zero", "none": "/dev/null", "dangling": "nowhere"}
    kind = draw.choice(["folder", "pipe", "missing", *target])
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind in target:
        path.symlink_to(target[kind])


def change_json(path: Path, draw: random.Random) -> None:
    """Put a value that is not expected, a missing key or an unknown one into a JSON file, or into one of its lines."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.suffix == ".jsonl" else [path.read_text("utf-8")]
    at = draw.randrange(len(lines))
    content = json.loads(lines[at])
    _change_value(content, draw)
    lines[at] = json.dumps(content)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _change_value(content: Any, draw: random.Random) -> None:
    place = content
    while True:
        keys = sorted(place) if isinstance(place, dict) else range(len(place))
        key = draw.choice(list(keys) or ["x"]) if isinstance(place, dict) else draw.choice(list(keys))
        inner = place.get(key) if isinstance(place, dict) else place[key]
        if not isinstance(inner, dict | list) or not inner or draw.random() < 0.3:
            break
        place = inner
    if isinstance(place, dict) and draw.random() < 0.2:
        place.pop(key, None)
    elif isinstance(place, dict) and draw.random() < 0.2:
        place[draw.choice(["", "x", "auto_map", "quantization_config", "tools", "\x00"])] = draw.choice(VALUES)
    else:
        place[key] = draw.choice(VALUES)


def change_toml(path: Path, draw: random.Random) -> None:
    """Change the value of a setting, leave the line out, write it twice, or add a setting."""
    lines = path.read_text(encoding="utf-8").splitlines()
    at = draw.randrange(len(lines))
    key = lines[at].partition("=")[0]
    values = [
        '""',
        "0",
        "-1",
        "nan",
        "9" * 5000,
        "9" * 25,
        "[]",
        "{}",
        "true",
        '"\\u001b[2J"',
        "[[[]]]",
        "1979-05-27",
        "1e400",
    ]
    values += [
        f"'{'((a+)+)+$' * 3}'",
        '"../.."',
        '"/etc"',
        '"http://127.0.0.1:9/x"',
        '{column = "message", after = ""}',
    ]
    values += [
        '{column = "message", remove = "(\\\\w+\\\\s*)+#"}',
        '["negative"]',
        '["a", "a"]',
        '"\\u0000"',
        '"' + "x" * 9999 + '"',
    ]
    changed = {
        "value": [*lines[:at], f"{key} = {draw.choice(values)}", *lines[at + 1 :]],
        "gone": [*lines[:at], *lines[at + 1 :]],
        "twice": [*lines[:at], lines[at], *lines[at:]],
        "new": [
            *lines[:at],
            f"{draw.choice(['x', 'labels', 'metric', 'path', 'name', 'k'])} = {draw.choice(values)}",
            *lines[at:],
        ],
    }
    path.write_text("\n".join(changed[draw.choice(list(changed))]) + "\n", encoding="utf-8")


def change_cells(path: Path, draw: random.Random) -> None:
    """Change a cell, a delimiter, a quote, the header or the number of cells of a table of text."""
    lines = path.read_text(encoding="utf-8").splitlines()
    at = draw.randrange(len(lines))
    cell = draw.choice(
        [
            "",
            "null",
            "nan",
            "0",
            "99",
            "-1",
            '"',
            '"x',
            "x,y,z",
            "\0",
            "=1+1",
            "\x1b[2J",
            "a" * 200_000,
            " billing",
            "\r",
        ]
    )
    changed = {
        "cell": f"{cell},{lines[at].rpartition(',')[2]}",
        "label": f"{lines[at].rpartition(',')[0]},{cell}",
        "delimiter": lines[at].replace(",", ";"),
        "header": "a,a",
        "more": lines[at] + ",x",
        "fewer": lines[at].partition(",")[0],
    }
    lines[at] = changed[draw.choice(list(changed))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def change_template(path: Path, draw: random.Random) -> None:
    """Put a piece that fails, or that asks for too much, anywhere into a template, or a setting before it."""
    content = path.read_text(encoding="utf-8")
    if draw.random() < 0.3:
        settings = ["answer", "stop", "separator", "labels"]
        values = [
            "'('",
            "'(' * 400",
            "'((((a{9999}){9999}){9999}){9999})'",
            "'(a+)+$'",
            "[]",
            "{}",
            "none",
            "1",
            "['']",
            "'\\n'",
        ]
        setting = f"{{% set {draw.choice(settings)} = {draw.choice(values)} %}}\n"
        path.write_text(setting + content, encoding="utf-8")
        return
    places = [at for at, letter in enumerate(content) if letter in "\n}"]
    at = draw.choice(places) + 1
    path.write_text(content[:at] + draw.choice(SNIPPETS) + content[at:], encoding="utf-8")


#: What breaks a file, and the endings of the files that it is for: none is any file.
SPOILERS: dict[Callable[[Path, random.Random], None], tuple[str, ...]] = {
    empty: (),
    truncate: (),
    flip_bytes: (),
    replace_text: (),
    insert_text: (),
    swap: (),
    make_odd: (),
    change_json: (".json", ".jsonl"),
    change_toml: (".toml",),
    change_cells: (".csv",),
    change_template: (".jinja",),
}
