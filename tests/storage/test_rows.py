"""Tables are cut into cells as their ending, their header or the user says, and damaged files are named."""

from __future__ import annotations

import pyarrow
import pyarrow.parquet
import pytest

from promptkit.data.local import DataFiles
from promptkit.data.records import load_records
from promptkit.data.tasks import load_task
from promptkit.errors import DataError, PromptkitWarning
from promptkit.storage.rows import Cells, count_rows, number_rows
from tests.conftest import TASK, Project


def rows(project: Project, name: str, content: str | bytes, cells: Cells | None = None) -> list[dict[str, str]]:
    """Return the rows of a file."""
    return [dict(row) for _, row in number_rows(project.write(name, content).relative_to(project.root), cells)]


def test_a_quote_in_tsv_is_a_character(project: Project) -> None:
    """A TSV file has a record a line, quotes or not; with `quoting` a cell may hold tabs and line breaks."""
    content = 'text\tlabel\nA fine evening.\t1\n"This is dull.\t0\nI left early."\t0\r\n\n'
    found = rows(project, "a.tsv", content)
    assert [row["text"] for row in found] == ["A fine evening.", '"This is dull.', 'I left early."']
    assert [row["label"] for row in found] == ["1", "0", "0"]
    assert rows(project, "a.tsv", 'text\tlabel\n"two\tlines\n"\t0\n', Cells(quoting=True)) == [
        {"text": "two\tlines\n", "label": "0"}
    ]


def test_tsv_that_looks_quoted_is_told(project: Project) -> None:
    """Where most rows have a cell in quotes, which are text, a warning names the option; asked for, nothing is said."""
    content = 'text\tlabel\n"one, two"\t1\n"three"\t0\nfour\t0\n'
    with pytest.warns(PromptkitWarning, match="most rows have a cell in double quotes, .* give --quoting"):
        assert rows(project, "a.tsv", content)[0]["text"] == '"one, two"'
    assert rows(project, "a.tsv", content, Cells(quoting=False))[0]["text"] == '"one, two"'
    assert rows(project, "a.tsv", content, Cells(quoting=True))[0]["text"] == "one, two"


def test_quotes_in_csv_may_be_characters_too(project: Project) -> None:
    """CSV is quoted; without quoting a lone quote is data."""
    content = 'text,label\n"dull,0\nso "fine",1\n'
    with pytest.raises(DataError, match=r"a.csv:2: this row cannot be read: .*--no-quoting, or quoting = false"):
        rows(project, "a.csv", content)
    assert [row["text"] for row in rows(project, "a.csv", content, Cells(quoting=False))] == ['"dull', 'so "fine"']


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_the_header_shows_the_delimiter(project: Project, suffix: str, delimiter: str) -> None:
    """Commas, semicolons, tabs and bars are told by the header that has one of them."""
    found = rows(project, f"a{suffix}", f"text{delimiter}label\na b{delimiter}1\n")
    assert found == [{"text": "a b", "label": "1"}]


def test_a_header_that_may_be_cut_in_two_ways_asks_for_the_delimiter(project: Project) -> None:
    """What the header leaves open is an error that names --delimiter; a quoted name leaves nothing open."""
    with pytest.raises(DataError, match=r"a.csv:1: a comma and a semicolon may stand between .* --delimiter"):
        rows(project, "a.csv", "text;label,note\na;1,b\n")
    assert rows(project, "a.csv", "text;label,note\na;1\n", Cells(delimiter=";")) == [{"text": "a", "label,note": "1"}]
    assert rows(project, "a.csv", '"text; all",label\na,1\n') == [{"text; all": "a", "label": "1"}]
    assert rows(project, "a.csv", "text\na\n") == [{"text": "a"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,label\na,1\n".encode("utf-16"), "a.csv: is UTF-16; save it as UTF-8"),
        ("a.jsonl", '{"text": "a"}\n'.encode("utf-16"), "a.jsonl: is UTF-16; save it as UTF-8"),
        ("a.tsv", "text\tlabel\n".encode("utf-16-le"), "a.tsv:1: the header holds NUL bytes; is this UTF-16"),
        ("a.tsv", b"text\tlabel\na\t1\n\xe9\t0\n", "a.tsv:3: not UTF-8: .*0xe9"),
        (
            "a.tsv",
            "text\tlabel\na\tb\t1\n",
            "a.tsv:2: this row does not have the header's 2 columns, but 3; .*--quoting",
        ),
        ("a.csv", "text;text\na;1\n", "a.csv:1: 2 columns are called 'text'"),
        ("a.parquet", b"PAR1" + b"\0" * 100 + b"PAR1", "a.parquet: not a Parquet file, or a damaged one: "),
        ("a.jsonl", b'{"text": "\xe9"}\n', "a.jsonl:1: not JSON: it is not UTF-8"),
    ],
)
def test_a_damaged_file_is_named(project: Project, name: str, content: str | bytes, message: str) -> None:
    """Other encodings, uneven rows and damaged files are one error with the file, and the line where there is one."""
    with pytest.raises(DataError, match=message):
        rows(project, name, content)


def test_damage_within_a_parquet_file_is_the_input_s(project: Project) -> None:
    """A file that is damaged behind a good beginning is a data error as well; its size is simply not known."""
    table = pyarrow.table({"text": [f"text {number} {number * 7919}" for number in range(50_000)]})
    pyarrow.parquet.write_table(table, "a.parquet", row_group_size=10_000)
    content = bytearray((project.root / "a.parquet").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 2000] = b"\xff" * 2000
    with pytest.raises(DataError, match=r"a.parquet: (not a Parquet file, or a damaged one|the column 'text')"):
        rows(project, "a.parquet", bytes(content))
    assert count_rows(project.write("b.parquet", "PAR1")) is None


def test_a_task_file_says_how_its_tables_are_cut(project: Project) -> None:
    """`delimiter` and `quoting` under [data] hold for the task's folder, what the user gives for what is given."""
    project.write("tasks/local/train.csv", "sentence:label\nx,y:1\n")
    task = TASK.replace("nobody/films", "local").replace("[data]", '[data]\ndelimiter = ":"')
    project.write("tasks/films.toml", task)
    assert load_records(load_task("films"), "train")[0].fields == {"text": "x,y"}
    project.write("rows.csv", 'sentence#label\n"x:y#1\n')
    given = DataFiles("rows.csv", delimiter="#", quoting=False)
    assert load_records(load_task("films"), "test", data=given)[0].fields == {"text": '"x:y'}
    with pytest.raises(DataError, match=r"--delimiter: a delimiter is one character, such as ; or | or tab, found ''"):
        DataFiles("rows.csv", delimiter="")
    for wrong in ({"delimiter": 5}, {"quoting": "yes"}, {"labels_are": ["names"]}):
        with pytest.raises(DataError, match=r"^--"):
            DataFiles("rows.csv", **wrong)
