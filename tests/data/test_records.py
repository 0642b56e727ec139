"""Local files, generators and folders into records, and what is said about data that are wrong."""

from __future__ import annotations

import json
import os

import pyarrow
import pyarrow.parquet
import pytest

import promptkit as pk
from promptkit.data.records import count_records, has_split, iterate_records, load_records
from promptkit.data.tasks import load_task
from promptkit.errors import DataError
from promptkit.storage.files import new_file
from tests.conftest import TASK, Project


def test_records_keep_the_files_order_and_name_their_place(project: Project) -> None:
    """Without an id column a record is called by its split and position."""
    records = load_records(load_task("films"), "train", data="data")
    assert [record.id for record in records[:2]] == ["train-0", "train-1"]
    assert records[0].fields == {"text": "a warm little film"}
    assert [record.label for record in records] == [1, 0, 1, 0, 1, 0]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".parquet", ".jsonl"])
def test_all_formats_give_the_same_records(project: Project, suffix: str) -> None:
    """JSONL, JSON, CSV, TSV and Parquet files of the same rows give the same records."""
    lines = "two lines" if suffix == ".tsv" else "two\nlines"  # TSV without quoting has one line per record
    rows = [{"sentence": f'{lines}, "quoted"', "label": 1}, {"sentence": "é, plain", "label": 0}]
    path = project.root / f"rows{suffix}"
    if suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif suffix == ".json":
        path.write_text(json.dumps(rows))
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    else:
        quoted = 'sentence,label\n"two\nlines, ""quoted""",1\n"é, plain",0\n'
        plain = 'sentence\tlabel\ntwo lines, "quoted"\t1\r\né, plain\t0\n'
        path.write_bytes((quoted if suffix == ".csv" else plain).encode())
    records = load_records(load_task("films"), "test", data=path)
    assert [(record.fields["text"], record.label) for record in records] == [
        (f'{lines}, "quoted"', 1),
        ("é, plain", 0),
    ]


@pytest.mark.parametrize("value", [1, "1", "positive", True, 1.0, "1.0"])
def test_labels_may_be_numbers_names_or_booleans(project: Project, value: object) -> None:
    """A label is its number, its name, a number as text, or a boolean."""
    project.write("rows.jsonl", json.dumps({"sentence": "x", "label": value}))
    assert load_records(load_task("films"), "test", data="rows.jsonl")[0].label == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"sentence": "x", "label": 1}\n{"sentence": "x", "label"\n',
            r"l:2: not JSON: [^:]*, at character \d+ of the line",
        ),
        ("[1, 2]\n", "rows.jsonl:1: found list; one JSON object per line"),
        ('{"sentence": "x", "label": 2}', r"rows.jsonl:1: label 2 is not one of 'negative', 'positive' \(or their"),
        ('{"sentence": "x", "label": "postive"}', r"label 'postive' is not one of .* Did you mean 'positive'\?"),
        ('{"sentence": "x", "label": -1}', "label -1 is not one of"),
        ('{"sentence": "x", "label": [1]}', r"label \[1\] is not one of"),
        ('{"sentance": "x", "label": 1}', r":1: no column 'sentence' for the field 'text'.*Did you mean 'sentance'"),
        ('{"sentence": null, "label": 1}', "rows.jsonl:1: the field 'text' is null"),
        ('{"sentence": "x"}', "rows.jsonl:1: no column 'label'"),
        ("", "split 'test' of task 'films' has no records"),
        (b'{"sentence": "\xff", "label": 1}', r"rows.jsonl:1: not JSON"),
    ],
)
def test_wrong_data_name_file_and_line(project: Project, content: str | bytes, message: str) -> None:
    """What cannot be read is reported with file, line, what was found and what was allowed."""
    project.write("rows.jsonl", content)
    with pytest.raises(DataError, match=message):
        load_records(load_task("films"), "test", data="rows.jsonl")


def test_csv_row_of_the_wrong_length_is_named(project: Project) -> None:
    """A CSV row with a cell too many is an error with its line, not a shifted record."""
    project.write("rows.csv", "sentence,label\nx,1\na, b,0\n")
    with pytest.raises(DataError, match=r"rows.csv:3: this row does not have the header's 2 columns"):
        load_records(load_task("films"), "test", data="rows.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sentence,label,label\nx,1,0\n", "rows.csv:1: 2 columns are called 'label'; give each a name of its own"),
        (b"sentence,label\nx,1\n\xe9,0\n", "rows.csv:3: not UTF-8: .*0xe9.*; save the file as UTF-8"),
        ('sentence,label\n"y,0\nz,1\n', "rows.csv:2: this row cannot be read: unexpected end of data"),
        ('sentence,label\nx,1\n"y,0\nz,1\n', "rows.csv:3: this row cannot be read: unexpected end of data; is a quote"),
    ],
)
def test_broken_csv_is_named_by_its_line(project: Project, content: str | bytes, message: str) -> None:
    """Columns of one name, bytes that are no text and a quote that is not closed are errors with file and line."""
    project.write("rows.csv", content)
    with pytest.raises(DataError, match=message):
        load_records(load_task("films"), "test", data="rows.csv")


def test_csv_cells_may_be_long(project: Project) -> None:
    """A cell holds what it holds, beyond the 131,072 characters of Python's own reader."""
    project.write("rows.csv", f"sentence,label\n{'x' * 200_000},1\n")
    assert len(load_records(load_task("films"), "test", data="rows.csv")[0].fields["text"]) == 200_000


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pyarrow.array([2**62, 2], pyarrow.timestamp("us")), r"timestamp\[us\]"),
        (pyarrow.array([2**30, 2], pyarrow.date32()), r"date32\[day\]"),
        (pyarrow.array([b"\xff", b"a"]).view(pyarrow.string()), "string"),
    ],
)
def test_values_that_python_does_not_have_are_named_by_their_column(
    project: Project, column: pyarrow.Array, kind: str
) -> None:
    """Dates beyond the year 9999 and texts that are no UTF-8 in Parquet are one error, also in a column of no use."""
    table = pyarrow.table({"sentence": ["a", "b"], "label": [1, 0], "when": column})
    pyarrow.parquet.write_table(table, "rows.parquet")
    with pytest.raises(DataError, match=rf"rows.parquet: the column 'when' \({kind}\) holds what cannot be read"):
        load_records(load_task("films"), "test", data="rows.parquet")


@pytest.mark.parametrize(
    ("name", "content", "count"),
    [("a.jsonl", "{}\n{}\n", 2), ("a.csv", "x\n1\n2\n", 2), ("a.csv", "", 0), ("a.parquet", "PAR1", None)],
)
def test_records_are_counted_without_being_read(project: Project, name: str, content: str, count: int | None) -> None:
    """A header is no record, and a file that is damaged is for its reader to complain about."""
    project.write(name, content)
    assert count_records(load_task("films"), "test", name) == count


@pytest.mark.parametrize("rows", [[{"sentence": b"good", "label": 1}], [{"sentence": "good", "label": b"positive"}]])
def test_bytes_are_no_text(project: Project, rows: list[dict[str, object]]) -> None:
    """A binary column of Parquet is refused with file, record and field, not shown in Python's notation."""
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows * 2), "rows.parquet")
    with pytest.raises(DataError, match=r"rows.parquet, record 0: the field '(text|label)' holds bytes, b'.*as text"):
        load_records(load_task("films"), "test", data="rows.parquet")


@pytest.mark.parametrize("text", ["12345678901234567890123", '["a", 12345678901234567890123]'])
def test_numbers_that_were_rounded_are_refused(project: Project, text: str) -> None:
    """An integer beyond what its reader holds would be shown as another one: it is refused, in lists as well."""
    project.write("rows.jsonl", f'{{"sentence": {text}, "label": 1}}')
    with pytest.raises(DataError, match=r"rows.jsonl:1: the field 'text' is .*1\.23.*too large to be read exactly"):
        load_records(load_task("films"), "test", data="rows.jsonl")


def test_two_files_of_one_split_are_not_chosen_from(project: Project) -> None:
    """Which of train.jsonl and train.csv is meant is for their owner to say; columns of one name as well."""
    project.write("data/train.csv", "sentence,label\nx,1\n")
    with pytest.raises(DataError, match=r"data: train.jsonl and train.csv are one split; keep one of them"):
        load_records(load_task("films"), "train", data="data")
    assert has_split(load_task("films"), "train", "data")  # or what is tested on would go unnoticed
    columns = [pyarrow.array(["x"]), pyarrow.array([1]), pyarrow.array([0])]
    table = pyarrow.Table.from_arrays(columns, ["sentence", "label", "label"])
    pyarrow.parquet.write_table(table, "rows.parquet")
    with pytest.raises(DataError, match=r"rows.parquet: 2 columns are called 'label'"):
        load_records(load_task("films"), "test", data="rows.parquet")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            {"text": ["x"]},
            r"rows.jsonl:1: the field 'label' holds a mapping, \{'text': \['x'\]\}, where text is expected",
        ),
        (["x"], r"rows.jsonl:1: the field 'label' holds a list, \['x'\], where text is expected; name an entry"),
    ],
)
def test_free_answers_are_text(project: Project, answer: object, message: str) -> None:
    """A list or mapping in the place of a text that is learned is refused, not shown in Python's notation."""
    project.write("tasks/films.toml", TASK.replace('labels = ["negative", "positive"]\n', ""))
    project.write("rows.jsonl", json.dumps({"sentence": "q", "label": answer}))
    with pytest.raises(DataError, match=message):
        load_records(load_task("films"), "test", data="rows.jsonl")


def test_missing_split_lists_what_is_there(project: Project) -> None:
    """A folder without a file for the split says which files it has."""
    with pytest.raises(DataError, match=r"no file for the split 'validation'.*found: test.jsonl, train.jsonl"):
        load_records(load_task("films"), "validation", data="data")
    assert not has_split(load_task("films"), "validation", "data")
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        load_records(load_task("films"), "test", data="nowhere")


def test_validation_file_never_serves_as_the_test(project: Project) -> None:
    """Where the hub's test split is called `validation`, a local validation file still is not the test."""
    (project.root / "data/test.jsonl").rename(project.root / "data/validation.jsonl")
    with pytest.raises(DataError, match="no file for the split 'test'"):
        load_records(load_task("films"), "test", data="data")


@pytest.mark.parametrize("name", ["dev", "valid", "val"])
def test_usual_names_of_the_validation_split_are_known(project: Project, name: str) -> None:
    """dev.jsonl, valid.jsonl and val.jsonl are the validation split, unless another split bears that name."""
    project.write(f"data/{name}.jsonl", '{"sentence": "set apart", "label": 1}\n')
    (record,) = load_records(load_task("films"), "validation", data="data")
    assert record.fields == {"text": "set apart"}
    task = (project.root / "tasks/films.toml").read_text().replace('test = "validation"', f'test = "{name}"')
    project.write("tasks/films.toml", task)
    assert not has_split(load_task("films"), "validation", "data")


def test_records_without_an_id_are_named_by_their_place(project: Project) -> None:
    """A null id is none, for every kind of task; a number that JSON readers round is refused, not rounded."""
    project.write(
        "rows.jsonl", '{"sentence": "one", "label": 1, "id": null}\n{"sentence": "two", "label": 1, "id": 7}\n'
    )
    found = load_records(load_task("films"), "train", data="rows.jsonl")
    assert [record.id for record in found] == ["test-0", "7"]
    project.write("data/train.jsonl", '{"sentence": "one", "label": 1, "id": null}\n')
    assert load_records(load_task("films"), "train", data="data")[0].id == "train-0"
    project.write("rows.jsonl", '{"sentence": "one", "label": 1, "id": 18446744073709551617}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:1: id is 1\.8446744073709552e\+19, a number too large"):
        load_records(load_task("films"), "train", data="rows.jsonl")


def test_a_limit_below_one_is_named(project: Project) -> None:
    """The limit is what is wrong, not the data."""
    with pytest.raises(DataError, match="limit is -1; a whole number from 1 is expected"):
        pk.build_pairs("films", "films/plain", data="data", limit=-1)


def test_limit_is_a_prefix_of_a_seeded_shuffle(project: Project) -> None:
    """A smaller limit gives the first records of a larger one; another seed gives others."""
    task = load_task("films")
    four = [record.id for record in load_records(task, "train", data="data", limit=4, seed=3)]
    six = [record.id for record in load_records(task, "train", data="data", limit=6, seed=3)]
    assert six[:4] == four
    assert six != [record.id for record in load_records(task, "train", data="data", limit=6, seed=4)]


def test_columns_may_be_parts_of_a_text(project: Project) -> None:
    """`after`, `before` and `remove` take a rationale and an answer out of one column."""
    task = TASK.replace('labels = ["negative", "positive"]\n', "").replace(
        'label = "label"',
        'label = {column = "answer", after = "#### ", remove = ","}\n'
        'rationale = {column = "answer", before = "\\n#### ", remove = "<<[^>]*>>"}',
    )
    project.write("tasks/films.toml", task)
    project.write("rows.jsonl", json.dumps({"sentence": "q", "answer": "40 * 30 = <<40*30=1200>>1200.\n#### 1,200"}))
    record = load_records(load_task("films"), "test", data="rows.jsonl")[0]
    assert (record.rationale, record.label) == ("40 * 30 = 1200.", "1200")
    project.write("rows.jsonl", json.dumps({"sentence": "q", "answer": "1200"}))
    with pytest.raises(DataError, match=r"rows.jsonl:1: column 'answer' does not hold '#### '"):
        load_records(load_task("films"), "test", data="rows.jsonl")


def test_records_may_bring_their_own_choices(project: Project) -> None:
    """A `choices` field may be in a struct; a label is then a letter, a number or the choice's text."""
    task = TASK.replace('labels = ["negative", "positive"]\n', "")
    project.write("tasks/films.toml", task.replace('label = "label"', 'label = "key"\nchoices = "options.text"'))
    rows = [{"sentence": "q", "options": {"text": ["red", "blue"]}, "key": key} for key in ("B", 1, "blue", "1")]
    project.write("rows.jsonl", "\n".join(map(json.dumps, rows)))
    records = load_records(load_task("films"), "test", data="rows.jsonl")
    assert [(record.label, record.choices) for record in records] == [(1, ("red", "blue"))] * 4


@pytest.mark.parametrize("value", [2, "2", 2.0])
def test_a_number_is_a_name_where_names_are_numbers(project: Project, value: object) -> None:
    """With labels "1" to "3" the number 2 is the label "2" in every format, never the third label."""
    project.write("tasks/films.toml", TASK.replace('["negative", "positive"]', '["1", "2", "3"]'))
    project.write("rows.jsonl", json.dumps({"sentence": "x", "label": value}))
    assert load_records(load_task("films"), "test", data="rows.jsonl")[0].label == 1


@pytest.mark.parametrize(
    ("labels", "value", "index"),
    [
        (["true", "false"], True, 0),
        (["True", "False"], False, 1),
        (["yes", "no"], True, 0),
        (["no", "yes"], True, 1),
        (["false", "true"], 1, 1),
        (["yes", "no"], "True", 0),
        (["negative", "positive"], True, 1),
        (["negative", "positive"], "FALSE", 0),
        (["-1", "0", "1"], -1, 0),
        (["-1", "0", "1"], "0", 1),
        (["0.5", "1.0"], 1, 1),
        (["0.5", "1.5"], 1, 1),
        (["0.5", "1.5"], 0.5, 0),
    ],
)
def test_a_label_s_own_name_comes_first(project: Project, labels: list[str], value: object, index: int) -> None:
    """True, in JSON or in text, is the label that is called so, wherever it stands; -1 the label of that number."""
    project.write("tasks/films.toml", TASK.replace('["negative", "positive"]', json.dumps(labels)))
    project.write("rows.jsonl", json.dumps({"sentence": "x", "label": value}))
    assert load_records(load_task("films"), "test", data="rows.jsonl")[0].label == index


def test_numbers_as_names_are_all_that_is_allowed(project: Project) -> None:
    """Where labels are numbers, what is not one of them is told these, and no index."""
    project.write("tasks/films.toml", TASK.replace('["negative", "positive"]', '["1", "2", "3"]'))
    project.write("rows.jsonl", '{"sentence": "x", "label": 0}')
    with pytest.raises(DataError, match=r"label 0 is not one of '1', '2', '3'\."):
        load_records(load_task("films"), "test", data="rows.jsonl")


def test_a_letter_names_its_choice_even_where_a_choice_reads_like_one(project: Project) -> None:
    """The answer key "A" is the first choice, also where the second one is the text "A"."""
    task = TASK.replace('labels = ["negative", "positive"]\n', "")
    project.write("tasks/films.toml", task.replace('label = "label"', 'label = "key"\nchoices = "options"'))
    blood = json.dumps({"sentence": "blood?", "options": ["B", "A", "O"], "key": "A"})
    project.write("rows.jsonl", blood + '\n{"sentence": "sky?", "options": ["blue", "red"], "key": "A"}')
    assert [record.label for record in load_records(load_task("films"), "test", data="rows.jsonl")] == [0, 0]
    project.write("rows.jsonl", blood)
    with pytest.raises(DataError, match=r"label 'A' may be 'B' as a letter.* or 'A' by its name: .*labels_are"):
        load_records(load_task("films"), "test", data="rows.jsonl")


def test_unlabelled_records_are_read_where_that_is_allowed(project: Project) -> None:
    """New records to be labelled need no label column."""
    project.write("rows.jsonl", '{"sentence": "x", "id": 7}')
    (record,) = iterate_records(load_task("films"), "test", data="rows.jsonl", labelled=False)
    assert (record.id, record.label) == ("7", None)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.csv", "sentence,label\n007,0\n1.50,1\nnull,1\n12345678901234567890123,1\n"),
        ("train.jsonl", '{"sentence": "2020-01-02", "label": 1}\n{"sentence": "2021-03-04 05:06:07", "label": 1}\n'),
    ],
)
def test_files_beside_the_task_are_read_as_any_others(project: Project, name: str, content: str) -> None:
    """Texts that look like numbers, dates or nothing stay texts in the folder that `path` names, as with `data`."""
    project.write(f"tasks/local/{name}", content)
    project.write("tasks/local/test.jsonl", "not what `test` names")
    task = TASK.replace("nobody/films", "local").replace('test = "validation"', 'test = "train"')
    project.write("tasks/films.toml", task)
    found = load_records(load_task("films"), "test")
    assert found == load_records(load_task("films"), "test", data=f"tasks/local/{name}")
    assert all(str(record.fields["text"]) in content for record in found)
    project.write(f"tasks/local/{name}", content[:-3])
    with pytest.raises(DataError, match=rf"local/{name}:\d: "):
        load_records(load_task("films"), "test")


def test_folder_that_load_dataset_takes_is_a_source(project: Project) -> None:
    """A folder beside the task file that is laid out as on the hub is loaded as from there; what is wrong names it."""
    project.write("tasks/films.toml", TASK.replace("nobody/films", "local"))
    rows = pyarrow.Table.from_pylist([{"sentence": "x", "label": 1}])
    (project.root / "tasks/local/data").mkdir(parents=True)
    pyarrow.parquet.write_table(rows, "tasks/local/data/train-00000-of-00001.parquet")
    assert load_records(load_task("films"), "train")[0].fields == {"text": "x"}
    with pytest.raises(DataError, match=r"folder tasks/local, split 'validation': cannot be loaded: .*such as train"):
        load_records(load_task("films"), "test")


def test_unreachable_hub_data_set_says_what_to_do(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set that cannot be loaded is one line that names it and the way around."""
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"hub data set 'nobody/films'.* cannot be loaded.*--data"):
        load_records(load_task("films"), "train")


def test_unknown_split_lists_the_known(project: Project) -> None:
    """A split that the task does not have is answered with those it has."""
    with pytest.raises(DataError, match=r"task 'films' has no split 'dev'; it has: train, test"):
        load_records(load_task("films"), "dev")


def test_what_is_wrong_further_down_is_told_where_it_is(project: Project) -> None:
    """Labels are looked for in the whole file; what cannot be read there is named by its own line alone."""
    project.write("rows.jsonl", '{"sentence": "x", "label": 1}\n{"sentence": "y", "label"\n')
    with pytest.raises(DataError, match=r"^rows.jsonl:2: not JSON"):
        load_records(load_task("films"), "test", data="rows.jsonl")


def test_a_pipe_in_place_of_data_is_not_the_output_s_fault(project: Project) -> None:
    """Whatever is wrong with the input while an output is written is said of the input."""
    os.mkfifo(project.root / "rows.jsonl")
    with pytest.raises(DataError, match=r"^rows.jsonl: is a pipe"), new_file(project.root / "out.jsonl"):
        load_records(load_task("films"), "test", data="rows.jsonl")
