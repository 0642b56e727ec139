"""Manifests: they say what is in a set, and make it again to the byte or say what has changed."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from promptkit.building.manifest import RowTally, write_set
from promptkit.cli import cli
from promptkit.errors import PromptkitError
from tests.conftest import TASK, TEMPLATE, Project

MIXTURE = """\
limit = 40
epochs = 2

[tasks.films]
data = "data"
templates = { plain = 2, terse = 1 }
labels = ["own", "swapped"]
shots = [0, 2]

[tasks.songs]
data = "songs"
balance = true
"""


def run(*words: str) -> Result:
    """Run the command line; raise what it raises."""
    return CliRunner().invoke(cli, list(words), catch_exceptions=False)


def refusal(*words: str) -> str:
    """Return the error that the command line stops with."""
    with pytest.raises(PromptkitError) as caught:
        run(*words)
    return str(caught.value)


def lines(first: int, count: int) -> str:
    """Return JSON lines of records."""
    rows = ({"sentence": f"sentence number {n}", "label": n % 2} for n in range(first, first + count))
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def mixed(project: Project) -> Project:
    """A project with a mixture of two tasks, one of whose training records is tested on."""
    project.write("mixture.toml", MIXTURE)
    project.write("tasks/songs.toml", TASK)
    project.write("templates/films/terse.jinja", TEMPLATE.replace("Text: ", ""))
    for name, first in (("data", 0), ("songs", 1000)):
        project.write(f"{name}/train.jsonl", lines(first, 30) + lines(500, 1))
        project.write(f"{name}/test.jsonl", lines(500, 10))
    return project


def test_a_manifest_says_what_is_in_the_set(mixed: Project) -> None:
    """Counts, hashes, settings, what was removed and why: all of it can be found again in the rows."""
    result = run("build", "mixture.toml", "--out", "set.jsonl")
    assert "1 left out (1 in the test split of films)" in result.stderr
    content = Path("set.jsonl").read_bytes()
    rows = [json.loads(line) for line in content.splitlines()]
    said = json.loads(Path("set.manifest.json").read_bytes())
    digest = hashlib.sha256(content).hexdigest()
    assert said["files"] == {"set.jsonl": {"bytes": len(content), "sha256": digest}}
    assert (said["rows"], said["rows_sha256"]) == (len(rows), digest)
    assert said["settings"]["limit"] == 40
    for name, counts in said["counts"].items():
        own = [row for row in rows if row["task"] == name]
        assert counts["rows"] == len(own) == sum(counts["epochs"].values())
        assert counts["templates"] == Counter(row["template"] for row in own)
        assert counts["wordings"] == Counter(row["wording"] for row in own)
        assert counts["shots"] == Counter(str(len(row["demonstration_ids"])) for row in own)
        assert counts["labels"] == Counter(["negative", "positive"][row["label"]] for row in own)
    films = said["tasks"]["films"]
    assert films["sha256"] == hashlib.sha256(TASK.encode()).hexdigest()
    assert set(films["templates"]) == {"films/plain", "films/terse"}
    assert (films["data"]["records"], films["data"]["kept"]) == (31, 30)
    assert said["removed_ids"]["films"] == {"in the test split of films": ["train-30"]}
    assert {"promptkit", "python", "orjson"} <= set(said["versions"])
    assert not [path for path in mixed.root.rglob("*") if path.name.endswith(".tmp")]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_set_is_built_again_to_the_byte(mixed: Project, ending: str) -> None:
    """The manifest alone makes the same file, and a manifest that makes it once more."""
    run("build", "mixture.toml", "--chat", "--out", f"set.{ending}")
    run("build", "set.manifest.json", "--out", f"copy.{ending}")
    run("build", "copy.manifest.json", "--out", f"again/third.{ending}")
    assert Path(f"set.{ending}").read_bytes() == Path(f"copy.{ending}").read_bytes()
    assert Path(f"set.{ending}").read_bytes() == Path(f"again/third.{ending}").read_bytes()


def test_the_report_says_which_part_has_nothing_to_compare_with(mixed: Project) -> None:
    """A part without a validation or test split of its own has that in its line, whatever the other parts have."""
    Path("songs/test.jsonl").unlink()
    films, songs = run("build", "mixture.toml", "--out", "set.jsonl").stderr.splitlines()[:2]
    assert "no validation or test split to compare with" not in films
    assert "no validation or test split to compare with" in songs


def test_the_report_says_that_one_file_was_cut(mixed: Project) -> None:
    """Prompts and pairs of one file share no record; each says which half it is, and the manifest makes it again."""
    mixed.write("all.jsonl", lines(0, 20))
    given = ["build", "films", "--data", "all.jsonl", "--out"]
    assert "all.jsonl is one file: prompts are made of the half" in run(*given, "prompts.jsonl").stderr
    assert "10 set aside for the test, as this is one file" in run(*given, "pairs.jsonl", "--as", "pairs").stderr
    made = [
        {json.loads(line)["id"] for line in Path(f"{name}.jsonl").read_text().splitlines()}
        for name in ("prompts", "pairs")
    ]
    assert (len(made[0]), len(made[1]), len(made[0] | made[1])) == (10, 10, 20)
    run("build", "pairs.manifest.json", "--out", "copy.jsonl")
    assert Path("copy.jsonl").read_bytes() == Path("pairs.jsonl").read_bytes()


def test_ids_that_repeat_are_counted(mixed: Project) -> None:
    """Records of one id have the same draws: the report warns of them, and the manifest counts them."""
    mixed.write(
        "songs/train.jsonl", "".join(line.replace("{", '{"id": 5, ', 1) for line in lines(0, 3).splitlines(True))
    )
    result = run("build", "mixture.toml", "--out", "set.jsonl")
    assert "warning: 2 have the id of another record" in result.stderr
    said = json.loads(Path("set.manifest.json").read_bytes())["tasks"]
    assert (said["songs"]["data"]["repeated_ids"], said["films"]["data"]["repeated_ids"]) == (2, 0)


def test_one_tasks_pairs_have_a_manifest_too(mixed: Project) -> None:
    """Options of the command line are kept in it; data that were moved are found by --data."""
    options = ["--template", "plain=1", "--template", "terse=3", "--epochs", "3", "--seed", "5", "--balance", "-k", "1"]
    run("build", "films", "--data", "data", "--as", "pairs", *options, "--limit", "11", "--out", "set.jsonl")
    assert len(Path("set.jsonl").read_text().splitlines()) == 33
    Path("data").rename("moved")
    assert "data: no such file or folder" in refusal("build", "set.manifest.json", "--out", "copy.jsonl")
    run("build", "set.manifest.json", "--data", "moved", "--out", "copy.jsonl")
    assert Path("set.jsonl").read_bytes() == Path("copy.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("file", "found", "message"),
    [
        ("templates/films/terse.jinja", "Sentiment", "template films/terse has changed since (SHA-256 was"),
        ("tasks/films.toml", "positive or", "task 'films' (tasks/films.toml) has changed since"),
        ("songs/train.jsonl", "1003", "the train data of task 'songs' (songs/train.jsonl) has changed since"),
        ("songs/test.jsonl", "number 503", "the data of the test split of songs has changed since"),
    ],
)
def test_what_has_changed_is_named(mixed: Project, file: str, found: str, message: str) -> None:
    """Another template, task or data file is an error that names it, and nothing is written."""
    run("build", "mixture.toml", "--out", "set.jsonl")
    text = Path(file).read_text()
    mixed.write(file, text.replace(found, found[:-1] + "0"))
    assert Path(file).read_text() != text
    said = refusal("build", "set.manifest.json", "--out", "copy.jsonl")
    assert said.startswith("set.manifest.json: ")
    assert message in said
    assert said.endswith("restore it, or build a new set")
    assert not list(mixed.root.glob("*copy*"))


def test_a_changed_legend_is_named(mixed: Project) -> None:
    """The file that explains swapped words is part of what a set is made from."""
    run("build", "mixture.toml", "--out", "set.jsonl")
    mixed.write("templates/_legend.jinja", "{% macro legend(instruction, words, meanings) %}!{% endmacro %}")
    said = refusal("build", "set.manifest.json", "--out", "copy.jsonl")
    assert "templates/_legend.jinja has changed since" in said


def test_other_rows_from_the_same_files_are_an_error(mixed: Project) -> None:
    """Where everything is the same but the rows, another version is to blame, and is named; nothing is written."""
    run("build", "mixture.toml", "--out", "set.jsonl")
    said = json.loads(Path("set.manifest.json").read_bytes())
    said["rows_sha256"] = "0" * 64
    said["versions"]["orjson"] = "1.0"
    mixed.write("other.manifest.json", json.dumps(said))
    message = refusal("build", "other.manifest.json", "--out", "copy.jsonl")
    assert "templates, tasks and data are the same, yet other rows came out; orjson 1.0 then, " in message
    assert not list(mixed.root.glob("*copy*"))


def test_a_set_and_its_manifest_are_there_or_neither_is(mixed: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error while rows are made, or when the last file is moved, leaves nothing; nothing is overwritten."""
    before = sorted(mixed.root.rglob("*"))

    def broken(self: RowTally) -> Any:
        yield from self.training_set.render(next(self.training_set.items()))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RowTally, "rows", broken)
    assert "set.jsonl: cannot be written (No space left on device)" in refusal(
        "build", "mixture.toml", "--out", "set.jsonl"
    )
    assert sorted(mixed.root.rglob("*")) == before
    monkeypatch.undo()
    monkeypatch.chdir(mixed.root)
    link = os.link

    def full(path: Path, target: Path) -> None:
        if target == Path("set.jsonl"):
            raise OSError(28, "No space left on device")
        link(path, target)

    monkeypatch.setattr(os, "link", full)
    assert "No space left on device" in refusal("build", "mixture.toml", "--out", "set.jsonl")
    assert sorted(mixed.root.rglob("*")) == before
    monkeypatch.undo()
    monkeypatch.chdir(mixed.root)
    mixed.write("set.manifest.json", "mine")
    assert "set.manifest.json: exists already" in refusal("build", "mixture.toml", "--out", "set.jsonl")
    assert Path("set.manifest.json").read_text() == "mine"
    assert not Path("set.jsonl").exists()


def test_what_a_manifest_says_cannot_be_asked_for_otherwise(mixed: Project) -> None:
    """Options that would change the rows are refused, as are a mixture's own, and each says why."""
    run("build", "mixture.toml", "--out", "set.jsonl")
    assert "--limit does not go with a manifest" in refusal("build", "set.manifest.json", "--limit", "3")
    assert "a manifest makes training pairs" in refusal("build", "set.manifest.json", "--as", "prompts")
    assert "a mixture makes training pairs" in refusal("build", "mixture.toml", "--as", "prompts")
    assert "--template does not go with a mixture: write it into mixture.toml" in refusal(
        "build", "mixture.toml", "--template", "plain"
    )
    assert "--epochs goes with training pairs" in refusal("build", "films", "--data", "data", "--epochs", "2")
    assert "weights go with training pairs" in refusal("build", "films", "--data", "data", "--template", "plain=2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"promptkit_manifest": 0}, "a manifest of form 0; this promptkit reads form 1"),
        ({"settings": {}}, "the manifest is not whole: 'settings.tasks' is missing"),
        ({"tasks": {}}, "describes the tasks none, and its settings mix 'films', 'songs'"),
        ({"rows": "many"}, "rows is 'many': input should be a valid integer"),
        ({"mine": 1}, "'mine' has no place in a manifest of form 1"),
        ({"rows_sha256": None}, "the manifest is not whole: 'rows_sha256' is missing"),
    ],
)
def test_a_manifest_that_is_not_whole_is_named(mixed: Project, change: dict[str, Any], message: str) -> None:
    """What is missing in it, or is not what belongs there, is one line that names it."""
    run("build", "mixture.toml", "--out", "set.jsonl")
    said = {**json.loads(Path("set.manifest.json").read_bytes()), **change}
    mixed.write("other.manifest.json", json.dumps({key: value for key, value in said.items() if value is not None}))
    refused = refusal("build", "other.manifest.json", "--out", "copy.jsonl")
    assert refused.startswith("other.manifest.json: ")
    assert message in refused


def test_what_is_no_manifest_is_called_what_it_is(mixed: Project) -> None:
    """A manifest that is gone or cut off, and a file of data in the place of a task, are no unknown tasks."""
    assert "no.manifest.json: cannot be read as a manifest (No such file" in refusal("build", "no.manifest.json")
    mixed.write("cut.manifest.json", '{"promptkit_manifest": 1, "sett')
    assert "cut.manifest.json: not a whole manifest: " in refusal("build", "cut.manifest.json")
    assert "data/train.jsonl: a task or a mixture's file is expected, and this is the name of data" in refusal(
        "build", "data/train.jsonl"
    )


def test_a_mixture_takes_the_options_of_the_whole(mixed: Project) -> None:
    """Limit, epochs, seed and the like of the command line come before the file's."""
    result = run("build", "mixture.toml", "--limit", "6", "--epochs", "1", "--json")
    whole = json.loads(result.stdout)
    assert (whole["as"], whole["manifest"]) == ("pairs", None)
    assert whole["removed"]["films"] == {"in the test split of films": 1}
    records = {(row["task"], row["id"], row["repeat"]) for row in whole["rows"]}
    assert len(records) == 6
    assert len(whole["rows"]) >= 6


def test_templates_per_record_are_a_number_or_all(mixed: Project) -> None:
    """What the command line is given is text, and counts as a number."""
    command = ["build", "films", "--data", "data", "--as", "pairs", "--json", "--template", "*", "--per-record"]
    counts = {given: len(json.loads(run(*command, given).stdout)["rows"]) for given in ("1", "2", "all")}
    assert counts["2"] == counts["all"] == 2 * counts["1"] > 0


def test_a_copy_in_another_layout_has_the_same_rows(mixed: Project) -> None:
    """A JSONL set can be built again as Parquet: its rows are held against the manifest, its bytes are not."""
    run("build", "mixture.toml", "--out", "set.jsonl")
    run("build", "set.manifest.json", "--out", "copy.parquet")
    first, second = (json.loads(Path(f"{name}.manifest.json").read_bytes()) for name in ("set", "copy"))
    assert first["rows_sha256"] == second["rows_sha256"]
    assert first["files"] != second["files"]


def test_library_sets_can_be_written_with_their_manifest(mixed: Project) -> None:
    """`write_set` takes any writer, also one that makes several files."""
    from promptkit.building import TrainingSet, load_mixture

    tally = RowTally(TrainingSet(load_mixture("mixture.toml")))

    def write(path: Path) -> int:
        rows = list(tally.rows())
        for half in (0, 1):
            path.with_name(f"{half}-{path.name}").write_text(json.dumps(rows[half::2]))
        return len(rows)

    count = write_set(tally, Path("halves/set.jsonl"), write, {})
    said = json.loads(Path("halves/set.manifest.json").read_bytes())
    assert set(said["files"]) == {"0-set.jsonl", "1-set.jsonl"}
    assert said["rows"] == count
