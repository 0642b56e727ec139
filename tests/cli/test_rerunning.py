"""A run says where it came from, and can be made again from what it kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from promptkit.cli import cli
from promptkit.cli.verbs.rerunning import compare_cells, rerun
from promptkit.errors import PromptkitError, RunError
from promptkit.experiments.compare import compare
from promptkit.experiments.origin import describe_place, hide_secrets
from promptkit.experiments.run_folder import Run
from promptkit.experiments.study import study
from promptkit.models import Model
from tests.conftest import TASK, TEMPLATE, Project
from tests.experiments.test_compare import small
from tests.experiments.test_identity import Named

__all__ = ["small"]

COMPARED: dict[str, Any] = {"methods": ("zero-shot", "few-shot"), "shots": (2,), "draws": 2, "limit": 4, "data": "data"}
STUDIED: dict[str, Any] = {"shots": (2,), "draws": 2, "orders": ("2",), "limit": 4, "data": "data"}


def origin(run: str) -> dict[str, Any]:
    """Return what run.json says of where a run came from."""
    return dict(json.loads(Path(run, "run.json").read_text())["origin"])


@pytest.mark.parametrize(("verb", "asked"), [(compare, COMPARED), (study, STUDIED)])
def test_a_run_is_made_again_from_what_it_kept(small: Model, project: Project, verb: Any, asked: Any) -> None:
    """Task and templates, imported ones too, are read from the run's own folder, whatever has become of them."""
    shown = TEMPLATE.replace("{% macro input", '{% import "films/_part.jinja" as part %}\n{% macro input', 1)
    project.write("templates/films/_part.jinja", '{% set separator = "\\n" %}')
    project.write("templates/films/plain.jinja", shown)
    first = verb("films", model=small.name, out="first", **asked)
    assert origin("first")["data"] == "data"
    assert Path("first/sources/tasks/films.toml").read_text() == TASK
    assert Path("first/sources/templates/films/plain.jinja").read_text() == shown
    assert Path("first/sources/templates/films/_part.jinja").is_file()
    project.write("templates/films/plain.jinja", TEMPLATE.replace("Text:", "Words:"))
    shutil.rmtree("templates")
    shutil.rmtree("tasks")
    found = rerun("first")
    assert found["reproduced"]
    assert found["equal"] == found["cells"] == len(list(Run(Path("first")).cells())) > 2
    assert found["rerun"] == "first-rerun"
    again = rerun(found["rerun"], out="third")
    assert again["reproduced"]
    assert first["run"] == "first"


def test_a_template_named_by_its_path_is_kept_too(small: Model, project: Project) -> None:
    """Also from outside of the template folders."""
    project.write("elsewhere/own.jinja", TEMPLATE)
    study("films", model=small.name, out="run", templates=("elsewhere/own.jinja",), **STUDIED)
    shutil.rmtree("elsewhere")
    assert rerun("run")["reproduced"]


def test_other_records_are_refused_before_anything_is_computed(small: Model, project: Project) -> None:
    """Where the data have changed or are gone, nothing is run and no folder is left."""
    compare("films", model=small.name, out="run", **COMPARED)
    text = Path("data/test.jsonl").read_text()
    project.write("data/test.jsonl", text.replace("still", "once"))
    with pytest.raises(RunError, match="run: the test records are not those of the run; give --data"):
        rerun("run")
    assert not Path("run-rerun").exists()
    project.write("moved/test.jsonl", text)
    shutil.copy("data/train.jsonl", "moved")
    assert rerun("run", data="moved")["reproduced"]


def test_what_differs_is_named(small: Model) -> None:
    """Equal, within rounding and different cells are told apart, and so is what is missing."""
    compare("films", model=small.name, out="run", **COMPARED)
    shutil.copytree("run", "other")
    paths = sorted(Path("other/cells").iterdir())
    other = Run(Path("other"))
    for path, change in zip(paths[:2], (1e-5, 0.5), strict=True):
        cell = json.loads(path.read_bytes())
        cell["result"]["predictions"][0]["logprobs"][0] += change
        other.save(cell["spec"], cell["result"])
    found = compare_cells(Path("run"), Path("other"))
    assert (found["equal"], found["within_rounding"], len(found["different"])) == (len(paths) - 2, 1, 1)
    assert found["different"][0]["difference"] < 0.51
    assert not found["reproduced"]
    paths[2].unlink()
    assert len(compare_cells(Path("run"), Path("other"))["missing"]) == 1


def test_the_verb_says_whether_all_is_the_same(small: Model) -> None:
    """In words, or as one object with --json; the scores of one condition are a run like any other."""
    run = CliRunner()
    asked = ["films", "--model", small.name, "--data", "data", "--limit", "3", "--out", "scored"]
    assert run.invoke(cli, ["score", *asked]).exit_code == 0
    told = run.invoke(cli, ["rerun", "scored"])
    assert told.exit_code == 0, told.output
    assert "1 of 1 cells are equal" in told.output
    found = json.loads(run.invoke(cli, ["rerun", "scored", "--out", "new", "--json"]).stdout)
    assert found["reproduced"]


@pytest.mark.parametrize("change", ["gone", "link", "run", "edited", "outside", "origin", "none", "list"])
def test_what_was_done_to_the_run_is_one_line(small: Model, change: str, project: Project) -> None:
    """Missing, linked, edited and foreign sources are errors that name the file; nothing is run."""
    compare("films", model=small.name, out="run", **COMPARED)
    kept, made = Path("run/sources/tasks/films.toml"), Path("run/run.json")
    content = json.loads(made.read_bytes())
    if change == "gone":
        kept.unlink()
    elif change == "link":
        kept.unlink()
        kept.symlink_to(Path("tasks/films.toml").resolve())
    elif change == "edited":
        kept.write_text(TASK.replace("Movie", "Film"))
    elif change == "outside":
        content["origin"]["task"] = "../../tasks/films.toml"
    elif change == "origin":
        content["origin"] = {"command": 3}
    elif change == "none":
        del content["origin"]
    else:
        content["origin"]["settings"]["shots"] = "x"
    made.write_text(json.dumps(content))
    if change == "run":
        made.symlink_to(made.rename("elsewhere.json").resolve())
    with pytest.raises(PromptkitError) as caught:
        rerun("run")
    assert "run" in str(caught.value)
    assert not Path("run-rerun").exists()


def test_what_python_scored_is_not_run_again(small: Model) -> None:
    """A function cannot be kept."""
    compare("films", model=small.name, out="run", scorer=Named(0, "always 0"), **COMPARED)
    with pytest.raises(RunError, match="its scorer is 'always 0', a function of Python"):
        rerun("run")


def test_credentials_are_kept_out(small: Model, project: Project) -> None:
    """Neither addresses with a password nor tokens come into a run folder, and a task file with them is not kept."""
    assert hide_secrets("https://me:word@host/x?token=abc&split=a") == "https://host/x?token=…&split=a"
    assert hide_secrets("hf_abcdefghijkl and s3://key:word@host") == "… and s3://host"
    assert describe_place(Path.cwd() / "data") == "data"
    assert describe_place(Path.home() / "nowhere") == "~/nowhere"
    project.write("tasks/films.toml", TASK.replace("labels =", 'reference = "https://me:word@host/films"\nlabels =', 1))
    compare("films", model=small.name, out="run", **COMPARED)
    for path in Path("run").rglob("*.*"):
        assert b"me:word" not in path.read_bytes()
    with pytest.raises(RunError, match="its task file was not kept, because it holds credentials"):
        rerun("run")
