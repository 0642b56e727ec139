"""Files of any size are labelled in a stream, and what was interrupted ends in the same bytes."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet
import pytest
from click.testing import CliRunner

from promptkit.adapters.card import CARD
from promptkit.cli.adapt import predict
from promptkit.cli.verbs import predicting
from promptkit.cli.verbs.predicting import Labeller, open_labeller
from promptkit.cli.verbs.unfinished import unfinished
from promptkit.data.record import Record
from promptkit.data.tasks import load_task
from promptkit.errors import DataError, PromptkitWarning, RunError, TaskError, TemplateError, WindowError
from promptkit.models import Model
from promptkit.prompts.pair import build_pair
from promptkit.scoring import score
from promptkit.templating.template import load_template
from promptkit.training import train
from tests.conftest import SENTENCES, TASK, TEMPLATE, Project
from tests.helpers.training_fakes import model, saved

# peft asks transformers by an old name when it wraps a network
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

COT = (
    TEMPLATE.replace(
        "{% macro target", "{% macro rationale(rationale) %} {{ rationale }}{% endmacro %}\n{% macro target"
    )
    + "{% set max_tokens = 4 %}"
)
FREE = 'description = "Sums"\ntemplates = "sums"\n[fields]\nsum = "sum"\nlabel = "label"\n[data]\npath = "no/sums"\n'
SUM = (
    '{% set answer = "(soup)" %}{% set max_tokens = 4 %}'
    "{% macro input(sum) %}{{ sum }} is{% endmacro %}{% macro target(label) %} {{ label }}{% endmacro %}"
)
CHOOSE = FREE.replace("sums", "picks").replace("label =", 'choices = "choices"\nlabel =')


class Stopped(BaseException):
    """What a kill is to Python: nothing handles it."""


@pytest.fixture(scope="module")
def network() -> Model:
    """A random model."""
    return model(window=200)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Score three records at a time."""
    monkeypatch.setattr(predicting, "PREDICT_ROWS", 3)


def labeller(network: Model, task: str = "films", template: str = "films/plain") -> Labeller:
    """A labeller of the project's own task."""
    return Labeller(network, load_template(template).bind(load_task(task)), chat=False)


def write_records(project: Project, name: str = "new.jsonl", count: int = 10) -> str:
    """Write records without labels."""
    rows = [{"id": f"n{number}", "sentence": f"{SENTENCES[number % 6][0]} {number}"} for number in range(count)]
    project.write(name, "".join(json.dumps(row) + "\n" for row in rows))
    return name


def stop_after(parts: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let scoring be killed when it has done so many parts; return the sizes of the parts it did."""
    done: list[int] = []

    def killed(model: Any, prompts: Any, **options: Any) -> Any:
        if len(done) == parts:
            raise Stopped
        done.append(len(prompts))
        return score(model, prompts, **options)

    monkeypatch.setattr(sys.modules["promptkit.scoring"], "score", killed)
    return done


def test_an_error_before_the_first_row_leaves_no_folder(network: Model, project: Project) -> None:
    """Where nothing could be labelled, there is no folder of parts, and none that was made for the output."""
    project.write("new.jsonl", "not JSON")
    with pytest.raises(DataError, match=r"new.jsonl:1: not JSON"):
        labeller(network).label_into("new.jsonl", Path("new/deep/out.jsonl"))
    assert not Path("new").exists()


@pytest.mark.parametrize("name", ["notes.txt", "rows.jsonl"])
def test_a_folder_of_somebody_else_is_left_alone(name: str, network: Model, project: Project) -> None:
    """A folder that has the name of the parts and holds something else is an error, and stays as it is."""
    new = write_records(project)
    mine = project.write(f"out.jsonl.part/{name}", '{"mine": 1}\n')
    with pytest.raises(RunError, match=r"out.jsonl.part: exists and holds no unfinished output; move it"):
        labeller(network).label_into(new, Path("out.jsonl"))
    assert mine.read_text() == '{"mine": 1}\n'
    assert not Path("out.jsonl").exists()


def test_a_file_that_comes_meanwhile_is_kept(project: Project) -> None:
    """What somebody puts in the place of the output stays; the rows stay too, and go there when it is free."""
    out = Path("out.jsonl")

    def finish() -> None:
        with unfinished(out, {"model": "a"}) as done:
            if not done.digests:
                done.add([{"id": "a"}], "digest")
                out.write_text("mine")
            done.finish(lambda file: file.write(b'{"id":"a"}\n'))

    with pytest.raises(RunError, match=r"out.jsonl: exists already"):
        finish()
    assert out.read_text() == "mine"
    out.unlink()
    finish()
    assert out.read_text() == '{"id":"a"}\n'


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("parts", [0, 1, 3])
def test_a_kill_ends_in_the_same_bytes(
    ending: str, parts: int, network: Model, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after any part, even while a line is written, the same call does the rest and ends in the same bytes."""
    file, out = write_records(project), Path(f"out.{ending}")
    assert labeller(network).label_into(file, Path(f"whole.{ending}")) == 10
    with monkeypatch.context() as patch:
        stop_after(parts, patch)
        with pytest.raises(Stopped):
            labeller(network).label_into(file, out)
    assert not out.exists()
    for name in ("rows.jsonl", "index.jsonl"):
        with (Path(f"{out}.part") / name).open("ab") as torn:
            torn.write(b'{"id": "n')
    with monkeypatch.context() as patch:
        done = stop_after(99, patch)
        assert labeller(network).label_into(file, out) == 10
    assert done == [3, 3, 3, 1][parts:]
    assert out.read_bytes() == Path(f"whole.{ending}").read_bytes()
    assert not Path(f"{out}.part").exists()


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "json"])
def test_every_kind_of_file_is_read(ending: str, network: Model, project: Project) -> None:
    """The same records in another kind of file have the same rows."""
    file = write_records(project)
    rows = [json.loads(line) for line in Path(file).read_text().splitlines()]
    if ending == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), "other.parquet")
    elif ending == "json":
        project.write("other.json", json.dumps(rows))
    else:
        with Path(f"other.{ending}").open("w", newline="") as table:
            writer = csv.DictWriter(table, rows[0], delimiter="," if ending == "csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    assert [*labeller(network).label_all(f"other.{ending}")] == [*labeller(network).label_all(file)]


def test_a_stream_is_refused(project: Project) -> None:
    """Standard input and pipes are one line that says to write a file, before a model is loaded."""
    os.mkfifo("pipe")
    for name in ("-", "/dev/stdin", "pipe"):
        found = CliRunner().invoke(predict, [name, "--adapter", "nothing"])
        assert str(found.exception).startswith(f"{name}: is a stream, and records are read more than once; write")


def test_parquet_has_the_same_rows_as_jsonl(network: Model, project: Project) -> None:
    """The label and the score of every label are columns, also of a file without a record."""
    file = write_records(project)
    labeller(network).label_into(file, Path("out.parquet"))
    table = pyarrow.parquet.read_table("out.parquet")
    assert table.to_pylist() == [*labeller(network).label_all(file)]
    assert labeller(network).label_into(write_records(project, "none.jsonl", 0), Path("none.parquet")) == 0
    empty = pyarrow.parquet.read_table("none.parquet").schema
    assert [*empty] == [field for field in table.schema if field.name != "sentence"]


def test_choices_of_each_record_fit_into_parquet(network: Model, project: Project) -> None:
    """Records with choices of their own have a list of choices and scores there, and an object in JSONL."""
    project.write("tasks/picks.toml", CHOOSE)
    project.write("templates/picks/plain.jinja", TEMPLATE.replace("(text)", "(sum)").replace("{{ text", "{{ sum")
                  .replace("labels", "choices").replace("instruction(choices)", "unused(choices)"))  # fmt: skip
    rows = [{"sum": "good or bad", "choices": ["good", "bad"]}, {"sum": "yes", "choices": ["yes", "no", "maybe"]}]
    project.write("new.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    asked = labeller(network, "picks", "picks/plain")
    asked.label_into("new.jsonl", Path("out.parquet"))
    found = [*asked.label_all("new.jsonl")]
    assert [[*row["scores"]] for row in found] == [row["choices"] for row in rows]
    listed = pyarrow.parquet.read_table("out.parquet").to_pylist()
    assert [{each["choice"]: each["score"] for each in row["scores"]} for row in listed] == [
        row["scores"] for row in found
    ]


def test_what_was_written_first_is_told(network: Model, project: Project) -> None:
    """A chain of thought is in its row beside the scores; a free-text answer has no scores."""
    project.write("templates/films/cot.jinja", COT)
    project.write("tasks/sums.toml", FREE)
    project.write("templates/sums/plain.jinja", SUM)
    for task, template, keys in (
        ("films", "films/cot", ["predicted", "confidence", "scores", "probabilities", "generated"]),
        ("sums", "sums/plain", ["predicted", "generated"]),
    ):
        project.write("new.jsonl", '{"sentence": "the soup", "sum": "the soup"}\n')
        asked = labeller(network, task, template)
        [row] = asked.label_all("new.jsonl")
        assert [*row] == ["id", "sentence", "sum", *keys]
        asked.label_into("new.jsonl", Path(f"{task}.parquet"))
        assert pyarrow.parquet.read_table(f"{task}.parquet").to_pylist() == [row]


def test_a_bad_row_is_named_and_the_rest_is_kept(network: Model, project: Project) -> None:
    """A row that cannot be read is one line with its place; mended, the same call goes on behind what was done."""
    file = write_records(project)
    good = Path(file).read_text()
    project.write(file, good.replace('"sentence": "a warm little film 6"', '"words": "a warm little film 6"'))
    with pytest.raises(DataError, match=r"^new\.jsonl:7: no column 'sentence' .*; the 6 rows before are kept in out"):
        labeller(network).label_into(file, Path("out.jsonl"))
    assert not Path("out.jsonl").exists()
    project.write(file, good)
    assert labeller(network).label_into(file, Path("out.jsonl")) == 10
    assert [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()] == [
        *labeller(network).label_all(file)
    ]


def test_a_record_beyond_the_window_is_named(network: Model, project: Project) -> None:
    """A record that is too long for the model is named by file and line."""
    file = write_records(project)
    project.write(file, Path(file).read_text().replace("twice", "twice " * 300))
    with pytest.raises(WindowError, match=r"^new\.jsonl:3: prompt 'n2' takes \d+ tokens"):
        list(labeller(network).label_all(file))
    before = {*Path().iterdir()}
    with pytest.raises(WindowError, match=r"^new\.jsonl:3: .* or another model$"):
        labeller(network).label_into(file, Path("out.jsonl"))
    assert {*Path().iterdir()} == before


def test_what_was_done_must_still_be_there(network: Model, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other records in front, fewer records or another template: one line each, and nothing is mixed."""
    file = write_records(project)
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        with pytest.raises(Stopped):
            labeller(network).label_into(file, Path("out.jsonl"))
    good = Path(file).read_text()
    project.write(file, good.replace("0", "00"))
    with pytest.raises(
        RunError, match=r"new\.jsonl: has changed in its first 6 records since .* remove out\.jsonl\.part"
    ):
        labeller(network).label_into(file, Path("out.jsonl"))
    project.write(file, "".join(good.splitlines(keepends=True)[:3]))
    with pytest.raises(RunError, match=r"new\.jsonl: has fewer records than were labelled already"):
        labeller(network).label_into(file, Path("out.jsonl"))
    project.write(file, good)
    project.write("templates/films/other.jinja", TEMPLATE.replace("Text", "Film"))
    with pytest.raises(
        RunError, match=r"out\.jsonl\.part: holds the beginning of another output \(template \w{12} there"
    ):
        labeller(network, template="films/other").label_into(file, Path("out.jsonl"))
    assert labeller(network).label_into(file, Path("out.jsonl")) == 10


def test_an_output_is_never_overwritten_or_shared(network: Model, project: Project) -> None:
    """A file that exists, another ending, and a second process at the same output are refused."""
    file = write_records(project)
    project.write("mine.jsonl", "mine")
    with pytest.raises(RunError, match=r"mine\.jsonl: exists already"):
        labeller(network).label_into(file, Path("mine.jsonl"))
    with pytest.raises(RunError, match=r"out\.txt: cannot write '\.txt'; allowed: \.jsonl, \.csv, \.tsv, \.parquet"):
        labeller(network).label_into(file, Path("out.txt"))
    with (
        unfinished(Path("out.jsonl"), {"a": "b"}) as done,
        pytest.raises(RunError, match=r"out\.jsonl\.part: another process is at this output"),
        unfinished(Path("out.jsonl"), {"a": "b"}),
    ):
        pass
    assert done.count == 0


def test_any_error_before_the_first_row_leaves_no_folder(project: Project) -> None:
    """Also one that nobody thought of; once there are rows, they stay."""

    def fail(rows: int) -> None:
        with unfinished(Path("out.jsonl"), {"a": "b"}) as done:
            for _ in range(rows):
                done.add([{"id": "1"}], "digest")
            raise RuntimeError

    for rows in (0, 1):
        with pytest.raises(RuntimeError):
            fail(rows)
        assert Path("out.jsonl.part").exists() == bool(rows)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("what.json", "[1]"),
        ("what.json", "{"),
        ("index.jsonl", "{bad\n"),
        ("index.jsonl", '{"rows": 1}\n'),
        ("index.jsonl", "[]\n"),
        ("rows.jsonl", '{"id":"2"}\n'),
    ],
)
def test_damaged_parts_are_named(name: str, content: str, project: Project) -> None:
    """What was not written so is one error that says what to remove; it never gets into the output."""
    with unfinished(Path("out.jsonl"), {"a": "b"}) as done:
        done.add([{"id": "1"}], "digest")
    project.write(f"out.jsonl.part/{name}", content)
    with (
        pytest.raises(RunError, match=r"out\.jsonl\.part/\w+\.jsonl?: is damaged \(.*\); remove out\.jsonl\.part, or"),
        unfinished(Path("out.jsonl"), {"a": "b"}),
    ):
        pass


def test_rows_that_are_gone_are_made_again(project: Project) -> None:
    """An index whose rows are not there, as after a kill between the last two steps, counts for nothing."""
    with unfinished(Path("out.jsonl"), {"a": "b"}) as done:
        done.add([{"id": "1"}], "digest")
    Path("out.jsonl.part/rows.jsonl").unlink()
    with unfinished(Path("out.jsonl"), {"a": "b"}) as done:
        assert (done.count, done.digests) == (0, [])
        done.add([{"id": "2"}], "digest")
        done.finish(lambda file: file.write(b"".join(map(orjson.dumps, done.read())) + b"\n"))
    assert Path("out.jsonl").read_text() == '{"id":"2"}\n'


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with an adapter for its task."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Project(folder)
        bound = load_template("films/plain").bind(load_task("films"))
        pairs = [
            build_pair(bound, Record(str(number), {"text": text}, label))
            for number, (text, label) in enumerate(SENTENCES)
        ]
        train(saved(model(window=200), folder / "base"), pairs, epochs=1, out=folder / "adapter")
    return folder


@pytest.fixture
def adapter(trained: Path, project: Project) -> str:
    """A copy of the adapter, in a project of its own."""
    return str(shutil.copytree(trained / "adapter", "adapter"))


def edit(adapter: str, **changes: Any) -> None:
    """Change keys of an adapter's card."""
    path = Path(adapter) / CARD
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_task_and_template_are_those_of_the_training(adapter: str, project: Project) -> None:
    """They come from the card; a changed file is an error with both hashes, or, where it is named, a warning."""
    assert open_labeller(adapter).bound.template.name == "films/plain"
    now = load_task("films").hash
    project.write("tasks/films.toml", TASK.replace("Movie", "Film"))
    changed = (
        rf"films\.toml: the task has changed since .* \(its hash is {load_task('films').hash[:12]}, .* {now[:12]}\)"
    )
    with pytest.raises(TaskError, match=changed):
        open_labeller(adapter)
    with pytest.warns(PromptkitWarning, match=r"on another version of task films, and is asked on the file as it is"):
        open_labeller(adapter, task="films")
    project.write("tasks/films.toml", TASK)
    project.write("templates/films/plain.jinja", TEMPLATE.replace("{{ label }}", "so {{ label }}"))
    with pytest.raises(TemplateError, match=r"restore the file, train again, or name it with --template"):
        open_labeller(adapter)
    told = (
        r"was trained with another version of template films/plain, to answer ' negative', ' positive', "
        r"and is asked with the file as it is now, for ' so negative'"
    )
    with pytest.warns(PromptkitWarning, match=told):
        open_labeller(adapter, template="films/plain")
    project.write("templates/films/short.jinja", TEMPLATE)
    with pytest.warns(PromptkitWarning, match=r"trained with template films/plain, and is asked with films/short"):
        open_labeller(adapter, template="films/short")


def test_one_of_several_templates_has_to_be_named(adapter: str, project: Project) -> None:
    """An adapter of several templates, or of rows without one, is used with the one that is named."""
    own = load_template("films/plain").hash
    edit(adapter, template="films/other, films/plain", template_hash=f"{own[::-1]}, {own}")
    with pytest.raises(
        RunError, match=r"was trained from the templates films/other, films/plain.* name one with --template"
    ):
        open_labeller(adapter)
    assert open_labeller(adapter, template="films/plain").bound.template.hash == own
    edit(adapter, template="", template_hash="")
    with pytest.raises(RunError, match="was trained from rows that name no template"):
        open_labeller(adapter)


def test_demonstrations_that_are_missing_are_told(adapter: str) -> None:
    """An adapter of few-shot prompts is asked zero-shot with a warning."""
    edit(adapter, demonstrations=4)
    with pytest.warns(PromptkitWarning, match="with up to 4 demonstrations, and is asked without any"):
        open_labeller(adapter)
