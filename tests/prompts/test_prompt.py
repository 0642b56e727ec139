"""Prompts and pairs: golden bytes, and one rendering for both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptkit.building.build import build_pairs, build_prompts, iterate_pairs, iterate_prompts
from promptkit.data.record import Record
from promptkit.data.tasks import load_task
from promptkit.errors import DataError, PromptkitError, TemplateError
from promptkit.prompts.pair import build_pair
from promptkit.prompts.prompt import (
    Message,
    build_prompt,
    place_system,
    prompt_from_row,
    prompt_row,
    render_pieces,
    render_text,
)
from promptkit.templating.template import load_template
from tests.conftest import TEMPLATE, Project

GOLDEN = Path(__file__).parents[1] / "golden"
REVIEW = Record("q", {"text": "The soup was cold and the waiter rude."}, 0, "The food is criticised.")
SHOWN = (
    Record("a", {"text": "Fresh bread, kind people."}, 1, "Food and service are praised."),
    Record("b", {"text": "We waited an hour."}, 0, "The wait is criticised."),
)
STORY = Record("s", {"question": "Ann has 3 plums and buys 4. How many are there?"}, "7", "3 + 4 = 7.")
SHOWN_STORY = Record("t", {"question": "Bo had 9 pens and lost 2. How many are left?"}, "7", "9 - 2 = 7.")


@pytest.mark.parametrize(
    ("name", "task", "query", "shown"),
    [
        ("sentiment/plain", "reviews", REVIEW, SHOWN),
        ("sentiment/cot", "reviews", REVIEW, SHOWN),
        ("word-problems/plain", "word-problems", STORY, (SHOWN_STORY,)),
        ("word-problems/cot", "word-problems", STORY, (SHOWN_STORY,)),
    ],
)
def test_golden_prompts(name: str, task: str, query: Record, shown: tuple[Record, ...]) -> None:
    """The shipped templates render to exactly these bytes: prompt, a bar, completion."""
    bound = load_template(name).bind(load_task(task))
    pair = build_pair(bound, query, shown)
    path = GOLDEN / f"{name.replace('/', '-')}.txt"
    assert f"{pair.prompt}|{pair.completion}" == path.read_bytes().decode()


@given(st.text(), st.lists(st.text(), max_size=3))
def test_pieces_pair_and_prompt_are_one_rendering(text: str, shown: list[str]) -> None:
    """Pieces put together, the prompt and the pair's prompt are the same text for any data."""
    bound = load_template("sentiment/plain").bind(load_task("reviews"))
    query = Record("q", {"text": text}, 1)
    demonstrations = [Record(str(number), {"text": each}, number % 2) for number, each in enumerate(shown)]
    rendered = "".join(piece for _, piece in render_pieces(bound, query, demonstrations))
    assert rendered == render_text(bound, query, demonstrations) == build_pair(bound, query, demonstrations).prompt
    assert build_prompt(bound, query, demonstrations).text == rendered
    assert text in rendered


def test_completion_is_the_choice_of_the_label() -> None:
    """What training teaches is, to the byte, the choice that scoring scores."""
    bound = load_template("sentiment/plain").bind(load_task("reviews"))
    assert build_pair(bound, REVIEW).completion == build_prompt(bound, REVIEW).choices[REVIEW.label or 0]


def test_messages_say_the_same_as_the_text() -> None:
    """Chat turns are instruction, then a user and an assistant turn per demonstration, then the query.

    An assistant's turn begins with its first word, not with what joins an answer to a plain prompt.
    """
    bound = load_template("sentiment/cot").bind(load_task("reviews"))
    prompt = build_prompt(bound, REVIEW, SHOWN, chat=True)
    assert [m.role for m in prompt.messages] == ["system", "user", "assistant", "user", "assistant", "user"]
    plain = bound.template.separator.join(
        [prompt.messages[0].content]
        + [prompt.messages[i].content + " " + prompt.messages[i + 1].content for i in (1, 3)]
        + [prompt.messages[5].content]
    )
    assert plain == prompt.text


def test_chain_of_thought_says_how_writing_ends() -> None:
    """A label task stops where the target begins; a free-text one reads its answer."""
    reviews = build_prompt(load_template("sentiment/cot").bind(load_task("reviews")), REVIEW)
    assert reviews.generation is not None
    assert reviews.choices[0].startswith(reviews.generation.stop[0])
    assert reviews.generation.answer is None
    story = build_prompt(load_template("word-problems/cot").bind(load_task("word-problems")), STORY)
    assert story.choices == ()
    assert story.generation is not None
    assert story.generation.answer
    assert build_prompt(load_template("sentiment/plain").bind(load_task("reviews")), REVIEW).generation is None


def test_rationale_must_be_there_to_be_shown() -> None:
    """A demonstration without a rationale is an error under a template that reasons."""
    bound = load_template("sentiment/cot").bind(load_task("reviews"))
    with pytest.raises(TemplateError, match="record 'a' has no rationale; use a template without one"):
        build_prompt(bound, REVIEW, [Record("a", {"text": "x"}, 1)])


@pytest.mark.parametrize("name", ["sentiment/plain", "sentiment/cot"])
@pytest.mark.parametrize("chat", [True, False])
def test_rows_lead_back_to_prompts(name: str, chat: bool) -> None:
    """A prompt written as a row and read again is the same prompt; with turns, its choices are contents of a turn."""
    prompt = build_prompt(load_template(name).bind(load_task("reviews")), REVIEW, SHOWN, chat=chat)
    back = prompt_from_row(prompt_row(prompt))
    if chat and name == "sentiment/plain":
        assert back.choices == ("negative", "positive")
        assert [back.text + choice for choice in back.choices] == [prompt.text + choice for choice in prompt.choices]
        prompt = replace(prompt, text=back.text, choices=back.choices)
    assert back == prompt


def test_system_may_stand_in_the_first_users_turn() -> None:
    """With system "user" the instruction, a blank line and the first input are one turn; nothing else changes."""
    template, task = load_template("sentiment/plain"), load_task("reviews")
    own = build_prompt(template.bind(task), REVIEW, SHOWN, chat=True).messages
    folded = build_prompt(template.bind(task, system="user"), REVIEW, SHOWN, chat=True).messages
    assert folded == (Message("user", f"{own[0].content}\n\n{own[1].content}"), *own[2:])
    assert place_system(folded, "user") == folded
    with pytest.raises(PromptkitError, match="system is 'first': expected system or user"):
        place_system(own, "first")


@pytest.mark.parametrize("build", [build_prompts, build_pairs])
def test_rows_of_turns_hold_the_contents_of_turns(project: Project, build: Any) -> None:
    """Choices and completion are a turn's; what joins them to a plain prompt ends that. `system` goes with chat."""
    plain, chat = (list(build("films", "films/plain", data="data", chat=each)) for each in (False, True))
    for own, other in zip(plain, chat, strict=True):
        assert [other["prompt"] + each for each in other["choices"]] == [
            own["prompt"] + each for each in own["choices"]
        ]
        assert other["choices"] == ["negative", "positive"]
        assert other.get("completion", "positive") in other["choices"]
    (folded, *_) = build("films", "films/plain", data="data", chat=True, system="user")
    assert [turn["role"] for turn in folded["messages"]] == ["user"]
    with pytest.raises(
        PromptkitError, match="system 'user' is for chat turns, and prompts are plain here; give --chat"
    ):
        list(build("films", "films/plain", data="data", system="user"))


def test_build_prompts_gives_rows_with_provenance(project: Project) -> None:
    """Every row names its record, its demonstrations, its template and the template's hash."""
    rows = build_prompts("films", "films/plain", k=2, data="data", limit=3, seed=1)
    assert len(rows) == 3
    template = load_template("films/plain")
    for row in rows:
        assert row["id"].startswith("test-")
        assert len(set(row["demonstration_ids"])) == 2
        assert (row["template"], row["template_hash"], row["task"]) == ("films/plain", template.hash, "films")
        assert row["choices"] == [" negative", " positive"]
        assert row["prompt"].count("Sentiment:") == 3
    streamed = build_prompts("films", "films/plain", k=2, data="data", limit=3, seed=1, streaming=True)
    assert list(streamed) == list(rows)


def test_a_template_is_named_within_its_family(project: Project) -> None:
    """A name without a slash is one of the task's family; several are too many for prompts, and a set of pairs."""
    project.write("templates/films/terse.jinja", TEMPLATE)
    for build in (build_prompts, build_pairs):
        assert list(build("films", "plain", data="data")) == list(build("films", "films/plain", data="data"))
    with pytest.raises(
        TemplateError, match=r"'\*' stands for 2 templates, one is needed; name it: films/plain, films/terse"
    ):
        build_prompts("films", "*", data="data")
    assert len(build_pairs("films", "*", data="data")) == 12


def test_build_pairs_equals_pair_by_pair(project: Project) -> None:
    """The columnar and the streamed builder give the very rows that single pairs give."""
    rows = build_pairs("films", "films/plain", data="data", chat=True)
    assert list(rows) == list(iterate_pairs("films", "films/plain", data="data", chat=True))
    assert list(rows) == list(build_pairs("films", "films/plain", data="data", chat=True, streaming=True))
    assert [row["completion"] for row in rows][:2] == ["positive", "negative"]
    assert rows[0]["messages"][-1] == {"role": "user", "content": "Text: a warm little film\nSentiment:"}


def test_an_empty_split_is_an_error(project: Project) -> None:
    """Neither prompts nor pairs are built from a file without records."""
    project.write("data/test.jsonl", "")
    for build in (build_prompts, build_pairs):
        with pytest.raises(DataError, match="split 'test' of task 'films' has no records"):
            build("films", "films/plain", data="data", split="test")


def test_prompts_do_not_depend_on_the_limit(project: Project) -> None:
    """A record gets the same prompt in a subset as in the whole split."""
    whole = {p.id: p for p in iterate_prompts("films", "films/plain", k=3, data="data", order="shuffled", seed=5)}
    part = list(iterate_prompts("films", "films/plain", k=3, data="data", order="shuffled", seed=5, limit=2))
    assert part == [whole[prompt.id] for prompt in part]
