"""Predictions stand beside the columns of the input, in any kind of file; bad rows are left out by wish."""

from __future__ import annotations

import csv
import datetime
import decimal
import json
import math
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from click.testing import CliRunner

from promptkit.cli.adapt import predict
from promptkit.cli.verbs.predicting import Labeller
from promptkit.cli.verbs.unfinished import check_output
from promptkit.data.local import DataFiles
from promptkit.errors import DataError, PromptkitError, RunError, WindowError
from promptkit.models import Model
from promptkit.scoring.calibration import choice_probabilities
from promptkit.templating.template import load_template
from promptkit.training import train
from tests.cli.test_predicting import Stopped, labeller, network, small_parts, stop_after, write_records
from tests.conftest import TASK, Project
from tests.helpers.training_fakes import model, saved

__all__ = ["network", "small_parts"]

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

OWN = ["predicted", "confidence", "probability_negative", "probability_positive"]
CELLS = ["=1+2", "-5", " two  spaces ", 'a "quote"', "a,comma", "two\nlines", "1e400", "é", "", "007"]


def skipping(network: Model, **settings: Any) -> Labeller:
    """A labeller that leaves out what it cannot label."""
    from promptkit.data.tasks import load_task

    bound = load_template("films/plain").bind(load_task("films"))
    return Labeller(network, bound, chat=False, on_error="skip", **settings)


def read_table(path: str, delimiter: str = ",") -> list[list[str]]:
    """Read a table, as text."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file, delimiter=delimiter))


def test_csv_gives_csv_with_all_columns(network: Model, project: Project) -> None:
    """Every cell of the input is kept as it is, in its place; the label and the probability of each label follow."""
    with Path("new.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["note", "sentence", "label"], *([cell, f"film {cell}", "?"] for cell in CELLS)])
    assert labeller(network).label_into("new.csv", Path("out.csv")) == 10
    header, *rows = read_table("out.csv")
    assert header == ["note", "sentence", "label", *OWN]
    assert [row[:3] for row in rows] == [[cell, f"film {cell}", "?"] for cell in CELLS]
    for row, found in zip(rows, labeller(network).label_all("new.csv"), strict=True):
        assert row[3] == found["predicted"]
        assert [float(cell) for cell in row[4:]] == [found["confidence"], *found["probabilities"].values()]
        assert found["confidence"] == max(found["probabilities"].values())
        shares = choice_probabilities(tuple(found["scores"].values()))
        assert list(found["probabilities"].values()) == pytest.approx(shares, abs=2e-6)
        assert math.isclose(sum(shares), 1)
    assert Path("out.csv").read_bytes().count(b"\r\n") >= 11  # as in the input


@pytest.mark.parametrize(("name", "delimiter"), [("new.csv", ";"), ("new.tsv", "\t"), ("new.csv", "|")])
def test_a_table_keeps_its_delimiter(name: str, delimiter: str, network: Model, project: Project) -> None:
    """What stands between cells there stands between them here; a quote in TSV is a character as any other."""
    project.write(name, f'note{delimiter}sentence\na "b{delimiter}fine\n' if name == "new.tsv" else
                  f'note{delimiter}sentence\n"a ""b"{delimiter}fine\n')  # fmt: skip
    out = Path(f"out{Path(name).suffix}")
    labeller(network).label_into(name, out)
    header, first = out.read_text().splitlines()
    assert header.split(delimiter) == ["note", "sentence", *OWN]
    assert first.startswith(('a "b' if name == "new.tsv" else '"a ""b"') + f"{delimiter}fine{delimiter}")


def test_parquet_keeps_its_types(network: Model, project: Project) -> None:
    """From Parquet to Parquet every column has the type it had, whatever JSON knows of it."""
    table = pyarrow.table(
        {
            "sentence": ["fine", "bad", None, "so"],
            "day": [datetime.date(2026, 1, day) for day in range(1, 5)],
            "price": pyarrow.array([decimal.Decimal("1.10")] * 4, pyarrow.decimal128(8, 2)),
            "raw": [b"\xff"] * 4,
            "few": pyarrow.array([1, 2, 3, 4], pyarrow.int8()),
            "kind": pyarrow.array(["a", "b", "a", "b"]).dictionary_encode(),
        }
    )
    pyarrow.parquet.write_table(table, "new.parquet", row_group_size=2)
    assert skipping(network).label_into("new.parquet", Path("out.parquet")) == 3
    found = pyarrow.parquet.read_table("out.parquet")
    assert found.column_names == ["id", *table.column_names, "predicted", "confidence", "scores", "probabilities"]
    kept = found.select(table.column_names)
    assert kept.schema == pyarrow.parquet.read_schema("new.parquet").remove_metadata()
    assert kept.to_pylist() == table.take([0, 1, 3]).to_pylist()
    assert found["id"].to_pylist() == ["test-0", "test-1", "test-3"]
    for ending in ("jsonl", "csv"):
        assert skipping(network).label_into("new.parquet", Path(f"other.{ending}")) == 3
    assert json.loads(Path("other.jsonl").read_text().splitlines()[0])["day"] == "2026-01-01"


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_any_kind_into_any_kind(kind: str, ending: str, network: Model, project: Project) -> None:
    """The same predictions stand in every kind of file."""
    rows = [{"uid": str(number), "sentence": f"film {number}"} for number in range(7)]
    if kind == "jsonl":
        project.write("new.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    else:
        project.write("new.csv", "uid,sentence\n" + "".join(f"{row['uid']},{row['sentence']}\n" for row in rows))
    wanted = list(labeller(network).label_all(f"new.{kind}"))
    assert labeller(network).label_into(f"new.{kind}", Path(f"out.{ending}")) == 7
    if ending in ("csv", "tsv"):
        _, *found = read_table(f"out.{ending}", "," if ending == "csv" else "\t")
        assert [row[:3] for row in found] == [[row["uid"], row["sentence"], row["predicted"]] for row in wanted]
    elif ending == "parquet":
        assert pyarrow.parquet.read_table("out.parquet").to_pylist() == wanted
    else:
        assert [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()] == wanted


def test_a_name_that_is_taken(network: Model, project: Project) -> None:
    """A column of the input that has the name of one that is added is an error; a prefix is the way out."""
    project.write("new.csv", "sentence,predicted\nfine,mine\n")
    with pytest.raises(DataError, match=r"^new.csv:2: has a column 'predicted' already, .* --prefix model_, for the"):
        labeller(network).label_into("new.csv", Path("out.csv"))
    assert {path.name for path in Path().iterdir()} == {"tasks", "templates", "data", "new.csv"}
    assert skipping(network, prefix="model_").label_into("new.csv", Path("out.csv")) == 1
    header, row = read_table("out.csv")
    assert header == ["sentence", "predicted", *(f"model_{name}" for name in OWN)]
    assert row[:2] == ["fine", "mine"]


@pytest.mark.parametrize("labels", ["null", '"no such label"', "7", "[1]", "1.5"])
def test_labels_are_not_needed(labels: str, network: Model, project: Project) -> None:
    """A gold label that is unknown, null or of another kind is kept as any other column, and stops nothing."""
    project.write("new.jsonl", f'{{"sentence": "fine", "label": {labels}}}\n{{"sentence": "bad"}}\n')
    first, second = labeller(network).label_all("new.jsonl")
    assert (first["label"], "label" in second) == (json.loads(labels), False)
    assert labeller(network).label_into("new.jsonl", Path("out.jsonl")) == 2


BAD = [
    ('{"words": "x"}', "no column 'sentence'"),
    ('{"id": 8, "sentence": null}', "the field 'text' is null"),
    ("not JSON", "not JSON"),
    ("[1]", "found list"),
    (json.dumps({"sentence": "long " * 300}), "takes "),
]


def write_bad(project: Project) -> str:
    """Write ten good rows with five bad ones among them."""
    good = Path(write_records(project)).read_text().splitlines()
    for place, (bad, _) in enumerate(BAD):
        good.insert(2 * place + 1, bad)
    project.write("new.jsonl", "".join(line + "\n" for line in good))
    return "new.jsonl"


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_bad_rows_are_left_out(ending: str, network: Model, project: Project) -> None:
    """The rest is labelled; a file of reasons beside the output names the place, the row, its id and why."""
    file, out = write_bad(project), Path(f"out.{ending}")
    written = skipping(network).label_file(file, out)
    assert (written.rows, written.left_out, written.errors) == (10, 5, Path(f"out.{ending}.errors.jsonl"))
    reasons = [json.loads(line) for line in Path(f"out.{ending}.errors.jsonl").read_text().splitlines()]
    assert [(row["row"], row["place"]) for row in reasons] == [(2 * at, f"new.jsonl:{2 * at}") for at in range(1, 6)]
    assert [row["id"] for row in reasons] == [None, "8", None, None, "test-9"]
    for row, (_, said) in zip(reasons, BAD, strict=True):
        assert said in row["error"]
    good = write_records(project, "rows.jsonl")
    labeller(network).label_into(good, Path(f"good.{ending}"))
    assert not Path(f"good.{ending}.errors.jsonl").exists()
    if ending == "csv":
        assert [row[:3] for row in read_table("out.csv")] == [row[:3] for row in read_table("good.csv")]
    elif ending == "parquet":
        found, wanted = (pyarrow.parquet.read_table(f"{name}.parquet") for name in ("out", "good"))
        assert found.schema == wanted.schema
        assert found.select(["id", "sentence", "predicted"]) == wanted.select(["id", "sentence", "predicted"])


def test_rows_of_a_table_with_other_columns(network: Model, project: Project) -> None:
    """A row of a CSV file that has too few or too many cells is left out by its line."""
    project.write("new.csv", "uid,sentence\n1,fine\n2\n3,bad,worse\n4,so\n")
    assert skipping(network).label_file("new.csv", Path("out.csv")).left_out == 2
    reasons = [json.loads(line) for line in Path("out.csv.errors.jsonl").read_text().splitlines()]
    assert [(row["row"], row["place"]) for row in reasons] == [(2, "new.csv:3"), (3, "new.csv:4")]
    assert [row[0] for row in read_table("out.csv")] == ["uid", "1", "4"]


@pytest.mark.parametrize("parts", range(6))
def test_a_kill_while_skipping_ends_in_the_same_bytes(
    parts: int, network: Model, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed anywhere, both files are there or neither, and end in the same bytes."""
    file = write_bad(project)
    skipping(network).label_file(file, Path("whole.csv"))
    with monkeypatch.context() as patch:
        stop_after(parts, patch)
        with pytest.raises(Stopped):
            skipping(network).label_file(file, Path("out.csv"))
    assert not Path("out.csv").exists()
    assert not Path("out.csv.errors.jsonl").exists()
    skipping(network).label_file(file, Path("out.csv"))
    for name in ("csv", "csv.errors.jsonl"):
        assert Path(f"out.{name}").read_bytes() == Path(f"whole.{name}").read_bytes()
    assert not Path("out.csv.part").exists()


def test_skipping_goes_on_where_an_error_stopped(network: Model, project: Project) -> None:
    """After an error the same command with `--on-error skip` goes on behind what was done."""
    file = write_records(project)
    project.write(file, Path(file).read_text() + "{}\n" + '{"sentence": "fine"}\n' * 3)
    with pytest.raises(DataError, match=r"^new.jsonl:11: .* the 9 rows before are kept"):
        labeller(network).label_into(file, Path("out.csv"))
    with pytest.raises(DataError, match=r"^new.jsonl:11: .* the 9 rows before are kept"):
        labeller(network).label_into(file, Path("out.csv"))
    assert skipping(network).label_file(file, Path("out.csv")).rows == 13


def test_a_kill_between_the_two_files(network: Model, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the reasons have their name already and the output has not, the same call ends as without a kill."""
    from promptkit.cli.verbs import unfinished

    file, publish = write_bad(project), unfinished.publish

    def killed(source: Path, path: Path) -> None:
        if path.suffix == ".csv":
            raise Stopped
        publish(source, path)

    with monkeypatch.context() as patch:
        patch.setattr(unfinished, "publish", killed)
        patch.setattr(Path, "unlink", lambda *_, **__: None)  # a kill clears nothing away
        with pytest.raises(Stopped):
            skipping(network).label_file(file, Path("out.csv"))
    assert Path("out.csv.errors.jsonl").exists()
    assert skipping(network).label_file(file, Path("out.csv")).rows == 10
    assert not Path("out.csv.part").exists()


def test_reasons_of_somebody_else_are_kept(network: Model, project: Project) -> None:
    """A file in the place of the reasons is never overwritten, and refused before anything is labelled."""
    file, mine = write_bad(project), project.write("out.csv.errors.jsonl", "mine")
    with pytest.raises(RunError, match=r"out.csv.errors.jsonl: exists already"):
        check_output(Path("out.csv"))
    with pytest.raises(RunError, match=r"out.csv.errors.jsonl: exists already"):
        skipping(network).label_file(file, Path("out.csv"))
    assert mine.read_text() == "mine"


def test_overlong_rows_are_left_out_alone(network: Model, project: Project) -> None:
    """`--overlong drop` leaves out what is beyond the window, and stops at everything else."""
    file = write_records(project)
    project.write(file, Path(file).read_text().replace("twice", "twice " * 300))
    with pytest.raises(WindowError, match=r"^new\.jsonl:3: prompt 'n2' takes"):
        labeller(network).label_into(file, Path("out.jsonl"))
    dropping = Labeller(network, labeller(network).bound, chat=False, overlong="drop")
    assert dropping.label_file(file, Path("out.jsonl")).left_out == 2
    project.write(file, Path(file).read_text() + "{}\n")
    with pytest.raises(DataError, match=r"^new\.jsonl:11: no column 'sentence'"):
        dropping.label_into(file, Path("other.jsonl"))


def test_nothing_but_bad_rows_is_an_error(network: Model, project: Project) -> None:
    """Where no row at all can be labelled, the first reason is said, and nothing is left."""
    project.write("new.csv", "words\n" + "fine\n" * 8)
    before = {*Path().iterdir()}
    with pytest.raises(DataError, match=r"^new.csv:2: no column 'sentence' .* none of the 8 rows of new.csv could be"):
        skipping(network).label_into("new.csv", Path("out.csv"))
    assert {*Path().iterdir()} == before


def test_time_left_is_that_of_this_run(network: Model, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress counts what is still to be done, not what an earlier run did."""
    file = write_records(project)
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        with pytest.raises(Stopped):
            labeller(network).label_into(file, Path("out.jsonl"))
    told: list[tuple[int, int]] = []
    labeller(network).label_into(file, Path("out.jsonl"), lambda name: lambda done, total: told.append((done, total)))
    assert told == [(0, 4), (3, 4), (4, 4)]


def test_another_column_that_changed_is_noticed(
    network: Model, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Columns that no prompt shows are kept in the output, so they must not change on the way either."""
    project.write("new.csv", "note,sentence\n" + "".join(f"a,film {number}\n" for number in range(8)))
    with monkeypatch.context() as patch:
        stop_after(1, patch)
        with pytest.raises(Stopped):
            labeller(network).label_into("new.csv", Path("out.csv"))
    project.write("new.csv", Path("new.csv").read_text().replace("a,", "b,"))
    with pytest.raises(RunError, match=r"new.csv: has changed in its first 3 records"):
        labeller(network).label_into("new.csv", Path("out.csv"))


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json", "parquet"])
@pytest.mark.parametrize("out", ["csv", "jsonl", "parquet"])
def test_a_broken_input_is_named(ending: str, out: str, network: Model, project: Project) -> None:
    """What cannot be read is the input's fault, also where only the second reading finds it."""
    project.write(f"new.{ending}", b"PAR1" + b"\0" * 100 + b"PAR1" if ending == "parquet" else b"\xff\xfe{" * 20)
    with pytest.raises(PromptkitError) as caught:
        labeller(network).label_into(f"new.{ending}", Path(f"out.{out}"))
    assert str(caught.value).startswith(f"new.{ending}")
    assert not Path(f"out.{out}.part").exists()


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_a_carriage_return_in_a_text_ends_no_row(ending: str, network: Model, project: Project) -> None:
    """A text of JSONL with any line end is one cell of the table, for whoever reads it."""
    project.write("new.jsonl", json.dumps({"sentence": "fine\rfilm\nto see"}) + "\n")
    labeller(network).label_into("new.jsonl", Path(f"out.{ending}"))
    rows = read_table(f"out.{ending}", "\t" if ending == "tsv" else ",")
    assert [row[rows[0].index("sentence")] for row in rows[1:]] == ["fine\rfilm\nto see"]


def test_labels_that_look_like_formulas(network: Model, project: Project) -> None:
    """A predicted label is such text, and the user's own cells are not touched."""
    project.write("tasks/films.toml", TASK.replace('["negative", "positive"]', '["=bad", "@good"]'))
    project.write("new.csv", "sentence\n=fine\n")
    labeller(network).label_into("new.csv", Path("out.csv"))
    header, row = read_table("out.csv")
    assert header == ["sentence", "predicted", "confidence", "probability_=bad", "probability_@good"]
    assert (row[0], row[1][:2]) in (("=fine", "'="), ("=fine", "'@"))


def test_text_that_comes_into_a_table_runs_in_no_spreadsheet(network: Model, project: Project) -> None:
    """Of rows that were in no table before, text and names that begin as a formula have an apostrophe in front."""
    project.write("new.jsonl", '{"sentence": "=1+1", "@note": "fine", "n": -2}\n')
    labeller(network).label_into("new.jsonl", Path("out.csv"))
    header, row = read_table("out.csv")
    assert (header[:3], row[:3]) == (["sentence", "'@note", "n"], ["'=1+1", "fine", "-2"])


def test_a_table_without_rows_keeps_its_header(network: Model, project: Project) -> None:
    """No record is no error."""
    project.write("new.csv", "note,sentence\n")
    assert labeller(network).label_into("new.csv", Path("out.csv")) == 0
    assert read_table("out.csv") == [["note", "sentence", *OWN]]


def test_the_command(project: Project) -> None:
    """Options of the command line: rows to a file and to stdout, counts, and reasons."""
    pairs = [{"prompt": "Text: fine\nSentiment:", "completion": " positive"}] * 2
    train(saved(model(window=200), Path("small")), pairs, epochs=1, out="adapter", probes=0)
    file = write_bad(project)
    options = ["--adapter", "adapter", "--task", "films", "--template", "films/plain", "--on-error", "skip"]
    ran = CliRunner().invoke(predict, [file, *options, "--out", "out.csv"], catch_exceptions=False)
    assert "10 rows written to out.csv; 5 left out, with reasons in out.csv.errors.jsonl" in ran.stderr
    ran = CliRunner().invoke(predict, [file, *options, "--out", "out.jsonl", "--json"], catch_exceptions=False)
    found = json.loads(ran.stdout)
    assert (found["rows"], found["left_out"], found["errors"]) == (10, 5, "out.jsonl.errors.jsonl")
    ran = CliRunner().invoke(predict, [file, *options, "--out", "-"], catch_exceptions=False)
    written = Path("out.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in ran.stdout.splitlines()] == [json.loads(line) for line in written]
    assert "left out: new.jsonl:2: no column 'sentence'" in ran.stderr
    assert ran.stderr.endswith("5 rows left out\n")
    ran = CliRunner().invoke(predict, [file, *options, "--json"], catch_exceptions=False)
    assert len(json.loads(ran.stdout)["rows"]) == 10
    assert len(json.loads(ran.stdout)["left_out"]) == 5


def test_one_answer_to_all_rows_is_said(network: Model, project: Project) -> None:
    """Labels that are nearly all the same are a note, for nobody sees it in a file of thousands of rows."""
    project.write("new.csv", "sentence\n" + "fine\n" * 8)
    one = labeller(network).label_file("new.csv", Path("out.csv")).one_answer
    assert one
    assert (one.answer, one.share) == (read_table("out.csv")[1][1], 1.0)


def test_delimiters_are_taken(network: Model, project: Project) -> None:
    """`--delimiter` says how the table is read, and so how it is written."""
    project.write("new.csv", "a;b,sentence\n1;2,fine\n")
    labeller(network).label_into(DataFiles("new.csv", ","), Path("out.csv"))
    assert read_table("out.csv")[0] == ["a;b", "sentence", *OWN]
