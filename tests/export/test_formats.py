"""Pairs go out in every format and come back as the same tokens; what a format cannot say is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptkit.building.build import build_pairs
from promptkit.cli import format_options as exporting
from promptkit.errors import DataError
from promptkit.export.formats import CHAT_FORMATS, FORMATS, TEXT_FORMATS, export_rows, pair_from_row, read_pair_rows
from promptkit.storage.files import write_rows
from promptkit.training.batches import encode_pairs, read_pairs
from tests.conftest import Project
from tests.helpers.naive import model

KINDS = ("byte-level", "unigram", "wordpiece")
TEXTS = st.text(alphabet=st.sampled_from("ab posi tive:\n\r\t.é🙂\u2028"), max_size=20)
#: Something that every tokenizer sees; a text of spaces alone is none to WordPiece.
WORDS = st.tuples(TEXTS, st.sampled_from("xé"), TEXTS).map("".join)
INSTRUCTION = "Label the text.\n"
#: A pair's row with an instruction and a demonstration, as text and as chat turns.
ROW: dict[str, Any] = {
    "id": "train-7",
    "prompt": f"{INSTRUCTION}\n\nText: bad\nIt is: awful\n\nText: good \n Sentiment:",
    "completion": " positive",
    "label": 1,
    "choices": [" negative", " positive"],
    "template": "films/plain",
    "messages": [
        {"role": "system", "content": INSTRUCTION},
        {"role": "user", "content": "Text: bad\nIt is:"},
        {"role": "assistant", "content": " awful"},
        {"role": "user", "content": "Text: good \n Sentiment:"},
    ],
}
PLAIN = {name: value for name, value in ROW.items() if name != "messages"}
ANSWER = {"role": "assistant", "content": " positive"}
TURN = {**ANSWER, "content": "positive"}  # as it is exported: a turn begins without what joins it to a plain prompt
ASKED = {"role": "user", "content": "good?"}


def export(row: dict[str, Any], format_: str) -> dict[str, Any]:
    """Return one row in a format, as it comes out of a JSONL file."""
    [exported] = export_rows([row], format_)
    read: dict[str, Any] = orjson.loads(orjson.dumps(exported))
    return read


@st.composite
def pairs(draw: st.DrawFn) -> dict[str, Any]:
    """Rows of pairs whose prompt is what their turns say, in the way of a template with any white space."""
    head, separator, completion = draw(TEXTS), draw(TEXTS), draw(WORDS)
    turns = [{"role": "system", "content": head}] if head else []
    prompt = head + separator if head else ""
    for _ in range(draw(st.integers(0, 2))):
        question, answer = draw(WORDS), draw(WORDS)
        turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        prompt += question + answer + separator
    query = draw(WORDS)
    turns.append({"role": "user", "content": query})
    choices = draw(st.sampled_from([[], [completion, completion + "!"]]))
    return {"id": "a", "prompt": prompt + query, "completion": completion, "choices": choices, "messages": turns}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("format_", [*FORMATS, None])
@settings(max_examples=20)
@given(row=pairs())
def test_tokens_of_plain_text_come_back(kind: str, format_: str | None, row: dict[str, Any]) -> None:
    """For any text, also of white space that matters, an exported and read row is trained on the same ids."""
    scored = model(kind=kind)
    row = row if format_ in (*TEXT_FORMATS, None) else {**row, "messages": []}
    back = export(row, format_) if format_ else orjson.loads(orjson.dumps(row))
    row = {**row, "choices": []} if format_ == "openai" else row
    assert encode_pairs(scored, read_pairs([back])) == encode_pairs(scored, read_pairs([row]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("format_", [*(name for name in FORMATS if name not in TEXT_FORMATS), None])
@settings(max_examples=20)
@given(row=pairs())
def test_tokens_of_chat_come_back(kind: str, format_: str | None, row: dict[str, Any]) -> None:
    """For any turns, an exported and read row is trained on the same ids of the tokenizer's own chat template."""
    scored = model(kind=kind)
    back = export(row, format_) if format_ else orjson.loads(orjson.dumps(row))
    row = {**row, "choices": []} if format_ == "openai" else row
    lessons = [read_pairs([each], chat=True) for each in (back, row)]
    assert encode_pairs(scored, lessons[0], chat=True) == encode_pairs(scored, lessons[1], chat=True)


def test_openai_adds_the_end_of_the_turn_to_labels() -> None:
    """Without choices a label is read back as free text: one token more is learned, and it is the end."""
    scored = model(kind="byte-level")
    own, back = (
        encode_pairs(scored, read_pairs([row], chat=True), chat=True)[0] for row in (ROW, export(ROW, "openai"))
    )
    assert (back.ids[:-1], back.start) == (own.ids, own.start)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ""])
@pytest.mark.parametrize("format_", FORMATS)
def test_files_lose_nothing(tmp_path: Path, suffix: str, format_: str) -> None:
    """Characters that a reader of lines or columns could take for something else come back from every kind of file."""
    nasty = {**PLAIN, "prompt": "a\r\nb\u2028\x00\x85\ufeff 🙂\t", "completion": " \n\u00a0é ", "choices": []}
    path = tmp_path / f"rows{suffix}"
    rows = list(export_rows([nasty, nasty], format_))
    if suffix:
        write_rows(rows, path)
    else:
        datasets.Dataset.from_list(rows).save_to_disk(str(path))
    assert [(pair.prompt, pair.completion) for pair in read_pair_rows(path)] == [
        (nasty["prompt"], nasty["completion"])
    ] * 2


def test_what_a_row_came_from_stays() -> None:
    """Id, label, choices and template come back from every format but OpenAI's, which takes none."""
    for format_ in FORMATS:
        pair = pair_from_row(export(PLAIN, format_), 0)
        kept = (pair.id, pair.label, pair.choices, pair.template)
        lost = ("0", None, (), "")
        assert kept == (lost if format_ == "openai" else ("train-7", 1, (" negative", " positive"), "films/plain"))


@pytest.mark.parametrize(
    ("format_", "columns"),
    [
        ("prompt-completion", {"prompt": ROW["messages"], "completion": [TURN]}),
        ("messages", {"messages": [*ROW["messages"], TURN]}),
        (
            "alpaca",
            {
                "instruction": f"{INSTRUCTION}\n",
                "input": "Text: bad\nIt is: awful\n\nText: good \n Sentiment:",
                "output": " positive",
            },
        ),
        (
            "sharegpt",
            {
                "conversations": [
                    {"from": "system", "value": INSTRUCTION},
                    {"from": "human", "value": "Text: bad\nIt is:"},
                    {"from": "gpt", "value": " awful"},
                    {"from": "human", "value": "Text: good \n Sentiment:"},
                    {"from": "gpt", "value": "positive"},
                ]
            },
        ),
        ("text", {"text": ROW["prompt"] + " positive", "spans": [[len(ROW["prompt"]), len(ROW["prompt"]) + 9]]}),
    ],
)
def test_columns_are_those_of_the_format(format_: str, columns: dict[str, Any]) -> None:
    """A format has its columns in place of prompt, completion and messages, behind the id; the others stay.

    In formats of turns the answer is the content of a turn, without the space that joins it to a plain prompt.
    """
    exported = export(ROW, format_)
    assert list(exported) == ["id", *columns, "label", "choices", "template"]
    assert {name: exported[name] for name in columns} == columns


def test_openai_takes_turns_alone_and_learns_the_last() -> None:
    """OpenAI's rows have no other column, and the answers of demonstrations weigh nothing."""
    exported = export(ROW, "openai")
    assert list(exported) == ["messages"]
    assert [turn.get("weight") for turn in exported["messages"]] == [None, None, 0, None, 1]
    assert all(turn.keys() == {"role", "content"} for turn in export(PLAIN, "openai")["messages"])


@pytest.mark.parametrize(
    ("prompt", "instruction", "query"),
    [
        ("Label it.\nText: x", "Label it.", "Text: x"),
        ("Label it.\n\n\nText: x", "Label it.\n\n", "Text: x"),
        ("Label it. Text: x", "Label it. Text: x", ""),
        ("Label it.\r\nText: x", "Label it.\r\nText: x", ""),
        ("Label it.\n\n", "Label it.\n\n", ""),
        ("Otherwise.\nText: x", "Otherwise.\nText: x", ""),
    ],
)
def test_alpaca_is_split_where_a_newline_joins_it_again(prompt: str, instruction: str, query: str) -> None:
    """Instruction and input are parted at the end of the instruction's turn, where there is a newline to part at."""
    turns = [{"role": "system", "content": "Label it."}, ASKED]
    exported = export({"prompt": prompt, "completion": " yes", "messages": turns}, "alpaca")
    assert (exported["instruction"], exported["input"]) == (instruction, query)
    assert pair_from_row(exported, 0).prompt == prompt


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "x"}, "found 'question': expected one of prompt and completion; messages; conversations"),
        ({}, "found nothing: expected one of"),
        ({"messages": [], "conversations": []}, "found 'messages', 'conversations': expected one of"),
        ({"text": "x"}, r"'text' without 'spans': expected the \[start, end\]"),
        ({"text": "ab", "spans": [[0, 1]]}, r"'spans' is \[\[0, 1\]\]: expected one .* ends with the text \(2 char"),
        ({"text": "ab", "spans": [[0, 1], [1, 2]]}, "expected one"),
        ({"text": "ab", "spans": [1]}, "expected one"),
        ({"text": "ab", "spans": [[1.0, 2.0]]}, "expected one"),
        (
            {"prompt": "x", "completion": " no", "choices": "[' no', ' yes']"},
            "'choices' is .*: expected a list of texts",
        ),
        ({"prompt": "x", "completion": " no", "choices": [1, 2]}, r"'choices' is \[1, 2\]: expected a list of texts"),
        ({"prompt": "x", "completion": " no", "task": ["x"]}, r"'task' is \['x'\]: expected text"),
        ({"prompt": "x", "completion": " no", "template_hash": 7}, "'template_hash' is 7: expected text"),
        ({"prompt": "x", "completion": " no", "messages": [{"role": "bot", "content": "x"}]}, "a turn of 'bot'"),
        ({"prompt": [ASKED], "completion": " positive"}, "'prompt' is .*: expected text"),
        ({"prompt": [ASKED], "completion": [ANSWER, ASKED, ANSWER]}, "'completion' has 3 turns: expected the answer"),
        ({"messages": [ASKED]}, "has the turns user: expected a user's, and an assistant's at the end"),
        ({"messages": [ANSWER]}, "has the turns assistant: expected"),
        ({"messages": ["hello"]}, r"'messages' is \['hello'\]: expected a list of objects"),
        ({"messages": [{"role": "tool", "content": "x"}, ANSWER]}, "a turn of 'tool': expected one of system, user"),
        ({"messages": [{"role": "user", "content": [1]}, ANSWER]}, r"content is \[1\]: expected text"),
        ({"messages": [ASKED, {**ANSWER, "tool_calls": [1]}]}, "a turn with 'tool_calls', which has no place"),
        ({"messages": [ASKED, {**ANSWER, "weight": 0}]}, "an? assistant's turn of weight 0: promptkit learns"),
        ({"messages": [ASKED, {**ANSWER, "weight": 1}, ASKED, ANSWER]}, "turn of weight 1: promptkit learns"),
        ({"conversations": [{"from": "observation", "value": "x"}]}, "a turn of 'observation'"),
        ({"conversations": [], "tools": "x"}, "'tools' is 'x', which has no place"),
        ({"instruction": "x", "output": "y", "input": 3}, "'input' is 3: expected text"),
        ({"instruction": "x", "output": "y", "history": ["q"]}, r"'history' is \['q'\]: expected a list of \[question"),
        ({"instruction": "x", "output": ""}, "the completion is empty"),
        ({"messages": [{"role": "system", "content": "a"}, ASKED, ANSWER]}, r"chat turns only, .* train with --chat"),
    ],
)
def test_what_is_no_pair_is_refused(row: dict[str, Any], message: str) -> None:
    """A row that says nothing to learn, or more than a pair can hold, is an error that names the row and the fix."""
    with pytest.raises(DataError, match=f"^training row 4.*{message}"):
        pair_from_row(row, 3)


TOOLS = [{"type": "function", "function": {"name": "weather"}}]
#: One question and answer in every form that is read, to which further columns are added.
FORMS: dict[str, dict[str, Any]] = {
    "texts": {"prompt": "Hi", "completion": " positive"},
    "turns": {"prompt": [ASKED], "completion": [ANSWER]},
    "messages": {"messages": [ASKED, ANSWER]},
    "sharegpt": {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": " positive"}]},
    "alpaca": {"instruction": "Hi", "output": " positive"},
    "text": {"text": "Hi positive", "spans": [[2, 11]]},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("column", "filled", "empty"),
    [
        ("tools", TOOLS, ([], None, "", "[]")),
        ("tools", json.dumps(TOOLS), ("null",)),
        ("functions", TOOLS, ([],)),
        ("tool_calls", TOOLS, ([{"id": None}],)),
        ("function_call", {"name": "weather"}, ({}, {"name": None})),
        ("images", ["a.png"], ([],)),
        ("chat_template_kwargs", {"enable_thinking": True}, ({},)),
        ("loss", False, (True, 0.3)),
        ("train", False, (True, "true")),
        ("train", "false", ()),
        ("weight", 0, (1, 1.0, "1")),
        ("weight", 0.5, ()),
        ("mask", True, (False,)),
        ("kto_tag", False, (True,)),
        ("label", True, (None, "good")),
    ],
)
def test_columns_that_would_be_dropped_are_refused_in_every_form(
    form: str, column: str, filled: object, empty: tuple[object, ...]
) -> None:
    """Tools, pictures and marks of what is not to be learned are errors where they say something, and only there."""
    for value in empty:
        assert (
            pair_from_row({**FORMS[form], column: value}, 0, chat=form not in ("texts", "text")).completion
            == " positive"
        )
    with pytest.raises(DataError, match=f"^training row 1: .*{column}"):
        pair_from_row({**FORMS[form], column: filled}, 0, chat=form not in ("texts", "text"))


@pytest.mark.parametrize("form", ["turns", "messages", "sharegpt"])
@pytest.mark.parametrize(
    ("mark", "no", "yes"),
    [
        *((name, False, True) for name in ("loss", "train", "training", "trainable", "learn", "loss_mask")),
        ("weight", 0, 1),
        ("mask", True, False),
        ("masked", True, False),
    ],
)
def test_marks_of_turns_mean_the_same_in_every_form(form: str, mark: str, no: object, yes: object) -> None:
    """An answer marked as not to be learned is refused, and so is an earlier turn that is to be learned."""

    def mark_turns(*marks: object) -> dict[str, Any]:
        said = [ASKED, {**ANSWER, "content": " no"}, ASKED, ANSWER]
        turns = [{**turn, mark: value} for turn, value in zip(said, marks, strict=True)]
        if form == "sharegpt":
            return {
                "conversations": [{"from": turn.pop("role"), "value": turn.pop("content"), **turn} for turn in turns]
            }
        return {"messages": turns} if form == "messages" else {"prompt": turns[:-1], "completion": turns[-1:]}

    for marks in ((None, None, None, None), (no, no, no, yes), (None, no, None, None)):
        assert pair_from_row(mark_turns(*marks), 0, chat=True).completion == " positive"
    for marks in ((None, None, None, no), (None, yes, None, yes), (yes, no, no, yes), (None, None, None, 0.5)):
        with pytest.raises(DataError, match=f"turn of {mark} .*: promptkit learns a row's last answer"):
            pair_from_row(mark_turns(*marks), 0, chat=True)


def test_a_column_for_the_system_is_its_turn() -> None:
    """It is the first turn of every form of turns, an error beside another system's turn, and of texts always."""
    for form in ("messages", "sharegpt", "alpaca"):
        row = {**FORMS[form], "system": "Brief."}
        assert pair_from_row(row, 0, chat=True).messages[0].content == "Brief."
        assert pair_from_row({**row, "system": ""}, 0, chat=True).messages[0].content != ""
    said = {"role": "system", "content": "Long."}
    with pytest.raises(DataError, match="both a column 'system' and a system's turn, with other texts"):
        pair_from_row({"messages": [said, ASKED, ANSWER], "system": "Brief."}, 0, chat=True)
    for form in ("texts", "turns", "text"):
        with pytest.raises(DataError, match=r"'system' is 'Brief\.', which has no place"):
            pair_from_row({**FORMS[form], "system": "Brief."}, 0, chat=form == "turns")


def test_rows_of_others_are_read() -> None:
    """Alpaca rows with a system text or a history, and turns under either names, become chat pairs."""
    alpaca = {"instruction": "Add.", "input": "1 + 1", "output": "2", "system": "Brief.", "history": [["Hi", "Hello"]]}
    turns = [(turn.role, turn.content) for turn in pair_from_row(alpaca, 0, chat=True).messages]
    assert turns == [("system", "Brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Add.\n1 + 1")]
    named = {"conversations": [ASKED, ANSWER], "system": "Brief."}
    assert [turn.role for turn in pair_from_row(named, 0, chat=True).messages] == ["system", "user"]
    filled = {"instruction": "Add.", "input": None, "output": "2", "text": "Below is an instruction"}
    assert pair_from_row(filled, 5).prompt == "Add."


def test_only_pairs_can_be_exported() -> None:
    """Prompts, an empty completion and an unknown name are errors."""
    for row, message in (
        ({"prompt": "x", "choices": ["a"]}, "row 1: no 'completion'"),
        ({**PLAIN, "completion": ""}, "empty"),
    ):
        with pytest.raises(DataError, match=message):
            list(export_rows([row], "messages"))
    with pytest.raises(DataError, match=r"no format 'alpacca'; allowed: .* Did you mean 'alpaca'"):
        list(export_rows([PLAIN], "alpacca"))


def test_rows_of_a_template_come_back(project: Project) -> None:
    """Pairs of a template are read back as they were built: plain formats as the plain pairs, others as chat."""
    rows, plain = (list(build_pairs("films", "films/plain", data="data", chat=chat)) for chat in (True, False))
    for format_ in FORMATS:
        chat = format_ not in TEXT_FORMATS
        back = [pair_from_row(export(row, format_), number, chat=chat) for number, row in enumerate(rows)]
        built = rows if chat else plain
        assert [(pair.completion, pair.choices) for pair in back] == [
            (row["completion"], () if format_ == "openai" else tuple(row["choices"])) for row in built
        ]
        if not chat:
            assert [pair.prompt for pair in back] == [row["prompt"] for row in built]


def test_names_on_the_command_line_are_the_formats() -> None:
    """The option's choices, which load nothing, are the library's."""
    assert tuple(FORMATS) == exporting.FORMATS
    assert {*CHAT_FORMATS, *TEXT_FORMATS} < set(FORMATS)
