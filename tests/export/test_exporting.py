"""`promptkit build` writes sets in every format, into files, folders and the hub; `promptkit train` takes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from click.testing import CliRunner, Result
from huggingface_hub.errors import LocalTokenNotFoundError

from promptkit.building.build import build_pairs
from promptkit.cli import cli
from promptkit.cli.verbs.exporting import Export
from promptkit.errors import RunError
from promptkit.export.formats import FORMATS, TEXT_FORMATS, read_pair_rows
from tests.conftest import Project
from tests.export.test_hub import FakeHub
from tests.helpers.training_fakes import model, saved

PAIRS = ["build", "films", "--data", "data", "--as", "pairs"]


def run(*words: str) -> Result:
    """Run a command line in this process; an error of promptkit is raised."""
    return CliRunner().invoke(cli, list(words), catch_exceptions=False)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ""])
@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_goes_into_every_kind_of_file(project: Project, format_: str, suffix: str) -> None:
    """What is built in a format is read back as the pairs; OpenAI's goes into JSONL alone."""
    ran = run(*PAIRS, "--format", format_, "--out", f"rows{suffix}")
    if format_ == "openai" and suffix != ".jsonl":
        assert (ran.exit_code, "--format openai is JSONL" in ran.stderr) == (2, True)
        return
    chat = format_ not in (*TEXT_FORMATS, "prompt-completion")
    pairs = list(read_pair_rows(Path(f"rows{suffix}"), chat=chat))
    built = list(build_pairs("films", "films/plain", data="data", chat=chat))
    assert sorted(pair.completion for pair in pairs) == sorted(row["completion"] for row in built)
    if chat:
        assert [turn.role for turn in pairs[0].messages] == ["system", "user"]
    else:
        assert {pair.prompt for pair in pairs} == {row["prompt"] for row in built}


def test_turns_are_those_of_the_format_unless_told_otherwise(project: Project) -> None:
    """A format of turns has the instruction in its own turn; with --plain the prompt is one user's turn."""
    rows = [json.loads(line) for line in run(*PAIRS, "--format", "messages", "--plain").stdout.splitlines()]
    assert [turn["role"] for turn in rows[0]["messages"]] == ["user", "assistant"]
    rows = [json.loads(line) for line in run(*PAIRS, "--format", "alpaca").stdout.splitlines()]
    assert rows[0]["instruction"] == "Label the following review with either negative or positive.\n"
    rows = [json.loads(line) for line in run(*PAIRS, "--format", "alpaca", "--plain").stdout.splitlines()]
    assert rows[0]["input"] == ""


def test_shards_are_named_and_counted(project: Project) -> None:
    """--shards spreads the rows over files beside the name that --out gives."""
    ran = run(*PAIRS, "--shards", "4", "--out", "set/train.parquet", "--json")
    assert json.loads(ran.stdout)["rows"] == 6
    assert len(list(Path("set").glob("train-0000?-of-00004.parquet"))) == 4
    assert len(list(read_pair_rows(Path("set")))) == 6


def test_folder_has_a_card(project: Project) -> None:
    """A folder for `datasets` says in its README.md what it holds."""
    run(*PAIRS, "--format", "messages", "--out", "set")
    card = Path("set/README.md").read_text()
    assert "# films pairs\n\n6 pairs" in card
    assert "Movie-review sentences, positive or negative" in card


def test_push_is_private_unless_public(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """--push makes a private data set with rows and card; --public an open one."""
    hubs = {name: FakeHub(project.root / name) for name in ("private", "public")}
    for name, options in {"private": [], "public": ["--public"]}.items():
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda library_name, name=name: hubs[name])
        ran = run(*PAIRS, "--format", "openai", "--push", "me/films", *options, "--json")
        assert json.loads(ran.stdout)["rows"] == 6
        assert hubs[name].files() == ["README.md", "data/train-00000-of-00001.jsonl", "train.manifest.json"]
        assert json.loads(ran.stdout)["manifest"] == "me/films/train.manifest.json"
        assert hubs[name].private == (name == "private")


@pytest.mark.parametrize(("options", "suffix"), [([], "parquet"), (["--format", "openai"], "jsonl")])
def test_a_pushed_manifest_makes_the_set_again(
    project: Project, monkeypatch: pytest.MonkeyPatch, options: list[str], suffix: str
) -> None:
    """The manifest that was pushed makes the same bytes as a file, and the same set in another repository."""
    hubs = iter([FakeHub(project.root / "hub"), FakeHub(project.root / "hub"), *[FakeHub(project.root / "copy")] * 2])
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda library_name: next(hubs))
    run(*PAIRS, *options, "--push", "me/films")
    run("build", "hub/train.manifest.json", "--out", f"copy.{suffix}")
    pushed = Path(f"hub/data/train-00000-of-00001.{suffix}").read_bytes()
    assert Path(f"copy.{suffix}").read_bytes() == pushed
    run("build", "hub/train.manifest.json", "--push", "me/copy")
    assert Path(f"copy/data/train-00000-of-00001.{suffix}").read_bytes() == pushed


def test_the_hub_is_asked_before_anything_is_read(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a login, and where the split is there, no record is read, however broken the data are."""
    project.write("data/train.jsonl", "no JSON")
    hub = FakeHub(project.root / "hub", refuse=LocalTokenNotFoundError("no token"))
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda library_name: hub)
    with pytest.raises(RunError, match="me/films: cannot be pushed to: no token"):
        run(*PAIRS, "--push", "me/films")
    project.write("hub/train.manifest.json", "{}")
    hub.refuse, hub.exists = None, True
    with pytest.raises(RunError, match=r"me/films: has train\.manifest\.json already"):
        run(*PAIRS, "--push", "me/films")


@pytest.mark.parametrize("other", ["rows.jsonl", "rows.manifest.json"])
def test_what_is_in_the_way_is_found_before_anything_is_read(project: Project, other: str) -> None:
    """A file, or the manifest of one with another ending, is refused before the data are."""
    project.write("data/train.jsonl", "no JSON")
    project.write(other, "mine")
    with pytest.raises(RunError, match=f"{other}: exists already"):
        run(*PAIRS, "--out", "rows.jsonl")


def test_train_takes_a_folder(project: Project) -> None:
    """A folder of `datasets` is trained on as a file is; turns need --chat, and are not taken for text."""
    saved(model(window=200), project.root / "small")
    run(*PAIRS, "--format", "messages", "--out", "set")
    words = ["train", "set", "--model", "small", "--epochs", "1", "--json"]
    with pytest.raises(Exception, match=r"set, row 1: chat turns only, no prompt as plain text: train with --chat"):
        run(*words, "--out", "plain")
    assert json.loads(run(*words, "--chat", "--out", "adapter").stdout)["rows"] == 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "prompts", "format": "messages"}, "--format goes with --as pairs"),
        ({"format": "alpaca", "chat": True}, "--format alpaca holds plain text: leave --chat out"),
        ({"push": "me/x", "out": "x.jsonl"}, "--push and --out: give one of them"),
        ({"public": True}, "--public goes with --push"),
        ({"shards": 2}, "--shards and --shard-rows go with --out or --push"),
        ({"shards": 2, "shard_rows": 2, "out": "a/x.jsonl"}, "--shards and --shard-rows: give one of them"),
        ({"shard_rows": 2, "out": "a"}, "a folder for `datasets` is cut by --shards"),
        ({"format": "openai", "out": "a/x.parquet"}, "--format openai is JSONL"),
    ],
)
def test_options_that_do_not_go_together(settings: dict[str, Any], message: str) -> None:
    """What cannot be meant is said before anything is built."""
    export = Export(**{"kind": "pairs", "source": "films", "split": "train", **settings})
    assert message in (export.misuse() or "")
