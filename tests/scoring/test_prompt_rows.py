"""Plain rows into prompts, and what is wrong with those that are none."""

from __future__ import annotations

import json
from typing import Any

import numpy
import pytest

from promptkit.cli.verbs.row_file import score_file
from promptkit.errors import DataError
from promptkit.prompts.prompt import Generation, Message, Prompt
from promptkit.scoring.prompt_rows import read_prompts
from tests.conftest import Project

ROW = {"prompt": "Sentiment:", "choices": [" positive", " negative"]}


def test_plain_row_is_a_prompt() -> None:
    """A row's keys become the prompt's; a missing id is the row's number."""
    first, second = read_prompts([ROW, {**ROW, "id": "a", "label": 1, "more": "ignored"}])
    assert (first.id, first.text, first.choices, first.label) == ("0", "Sentiment:", (" positive", " negative"), None)
    assert (second.id, second.label) == ("a", 1)


def test_values_of_other_libraries_are_read() -> None:
    """A null id is a missing one, as JSON has it, and numpy's whole numbers are labels."""
    (row,) = read_prompts([{**ROW, "id": None, "label": numpy.int64(1)}], first=7)
    assert (row.id, row.label) == ("7", 1)


def test_prompt_is_taken_as_it_is() -> None:
    """A prompt of the builder passes through unchanged."""
    prompt = Prompt("a", "Sentiment:", (" x",), 0)
    assert read_prompts([prompt])[0] is prompt


def test_row_with_turns_and_something_to_generate() -> None:
    """What the builder writes into a row is read back: turns, and what is to be generated."""
    generation = {"stop": ["\n"], "max_tokens": 5, "answer": None}
    turns = [{"role": "user", "content": "hello"}]
    (prompt,) = read_prompts([{"prompt": "hello", "messages": turns, "generation": generation}], chat=True)
    assert prompt.messages == (Message("user", "hello"),)
    assert prompt.generation == Generation(("\n",), 5, None)


def test_row_with_prompts_to_calibrate_by() -> None:
    """Texts, or turns for chat, become prompts with the row's own choices."""
    (prompt,) = read_prompts([{**ROW, "content_free": ["N/A", ""], "domain": ["words"]}])
    assert [other.text for other in prompt.content_free] == ["N/A", ""]
    assert [other.text for other in prompt.domain] == ["words"]
    assert {other.choices for other in (*prompt.content_free, *prompt.domain)} == {(" positive", " negative")}
    turns = [{"role": "user", "content": "N/A"}]
    (prompt,) = read_prompts([{**ROW, "messages": turns, "content_free": [turns]}], chat=True)
    assert prompt.content_free[0].messages == (Message("user", "N/A"),)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("text", "row 2 is a str: expected a Prompt or an object with a prompt"),
        ({"text": "a"}, "row 2: 'prompt' is missing, found text: expected text"),
        ({**ROW, "prompt": 3}, "row 2: 'prompt' is 3: expected text"),
        ({**ROW, "choices": " positive"}, "row 2: 'choices' is ' positive': expected a list of texts"),
        ({**ROW, "choices": ["a", 1]}, r"row 2: 'choices' is \['a', 1\]: expected a list of texts"),
        ({**ROW, "choices": []}, r"row 2 \(id '1'\): no choices, and nothing to generate"),
        ({**ROW, "choices": ["a", ""]}, r"row 2 \(id '1'\): choice 1 is empty: expected at least one character"),
        ({**ROW, "label": 2}, r"row 2 \(id '1'\): label 2 is not an index from 0 to 1"),
        ({**ROW, "label": "positive"}, "label 'positive' is not an index from 0 to 1"),
        ({**ROW, "label": True}, "label True is not an index from 0 to 1"),
        ({**ROW, "messages": ["hello"]}, "row 2: 'messages' is .*: expected a list of objects with role and content"),
        (
            {**ROW, "messages": [{"role": "tool", "content": "a"}]},
            "row 2: a turn of 'tool': expected one of system, user, assistant",
        ),
        (
            {**ROW, "messages": [{"role": "user", "content": ["a"]}]},
            r"row 2: a turn whose content is \['a'\]: expected",
        ),
        ({**ROW, "tools": [{"name": "weather"}]}, "row 2: 'tools' is .*, which has no place here: remove"),
        ({**ROW, "label": 0.5}, "label 0.5 is not an index from 0 to 1"),
        ({**ROW, "content_free": "N/A"}, "row 2: 'content_free' is 'N/A': expected a list of prompts, texts or lists"),
        ({**ROW, "domain": ["a", 1]}, r"row 2: 'domain' is \['a', 1\]: expected a list of prompts, texts or lists"),
        ({**ROW, "domain": [[{"role": "user", "content": "a"}]]}, "is a list of turns: expected text, or score with"),
        ({**ROW, "generation": {"stop": []}}, "row 2: 'generation' is .*: expected stop, max_tokens and answer"),
        (
            {**ROW, "generation": {"stop": "te", "max_tokens": 5, "answer": None}},
            "row 2: the stop of 'generation' is 'te': expected a list of texts",
        ),
    ],
)
def test_malformed_row_is_an_error_that_names_it(row: Any, message: str) -> None:
    """The row's number, what was found and what was expected."""
    with pytest.raises(DataError, match=message):
        read_prompts([ROW, row])


def test_chat_without_turns_is_an_error() -> None:
    """Chat turns are never made up from a plain prompt."""
    with pytest.raises(DataError, match=r"row 1 \(id '0'\): no messages: chat turns are needed for --chat"):
        read_prompts([ROW], chat=True)
    turns = [{"role": "user", "content": "hello"}]
    with pytest.raises(DataError, match="a content-free prompt is text: expected a list of turns, as for --chat"):
        read_prompts([{**ROW, "messages": turns, "content_free": ["N/A"]}], chat=True)


def test_content_free_prompts_belong_to_choices() -> None:
    """They have the choices of their prompt, and there is nothing to calibrate where the model writes first."""
    other = Prompt("b", "N/A", (" y",), None)
    with pytest.raises(DataError, match=r"a content-free prompt has choices \(' y',\): expected \(' x',\)"):
        read_prompts([Prompt("a", "Sentiment:", (" x",), 0, content_free=(other,))])
    generation = {"stop": [], "max_tokens": 5, "answer": None}
    with pytest.raises(DataError, match="content-free prompts calibrate choices; here the model writes first"):
        read_prompts([{**ROW, "generation": generation, "domain": ["x"]}])


def test_a_bad_row_of_a_file_is_named(project: Project) -> None:
    """By its line, or, in a JSON file, which has no lines that count, by its record."""
    rows = [{"prompt": "a", "choices": [" b", " c"]}, {"prompt": "a"}]
    project.write("rows.jsonl", "\n".join(map(json.dumps, rows)) + "\n")
    project.write("rows.json", json.dumps(rows))
    for name, place in (("rows.jsonl", "rows.jsonl:2"), ("rows.json", "rows.json, record 1")):
        with pytest.raises(DataError, match=rf"^{place}: "):
            score_file(name, model="tiny")
