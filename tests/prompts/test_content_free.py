"""Which prompts have no content: what is replaced, what stays, and which random words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from promptkit.data.record import Record
from promptkit.data.tasks import load_task
from promptkit.prompts.content_free import DOMAIN_TEXTS, ContentFree
from promptkit.prompts.prompt import Prompt, build_prompt
from promptkit.templating.template import BoundTemplate, load_template
from tests.conftest import Project

ALL = ("pmi", "contextual", "domain")


@pytest.fixture
def films(project: Project) -> BoundTemplate:
    """The project's template, bound to its task."""
    return load_template("films/plain").bind(load_task("films"))


def record(id_: str, text: str) -> Record:
    """A review with a label."""
    return Record(id_, {"text": text}, 1)


POOL = [record("a", "warm"), record("b", "cold")]
QUERIES = [record("1", "the jokes never land"), record("2", "two hours of grey soup, two"), record("3", "sharp")]


def completed(bound: BoundTemplate, queries: list[Record], k: int = 1, **settings: Any) -> list[Prompt]:
    """The prompts of queries, each behind the first k of the pool, with their content-free prompts."""
    settings = {"readings": ALL, "seed": 0} | settings
    maker = ContentFree(bound, queries, POOL, **settings)
    prompts = [build_prompt(bound, query, POOL[:k], chat=settings.get("chat", False)) for query in queries]
    return maker.attach(prompts, queries)


def test_only_the_text_of_the_query_is_replaced(films: BoundTemplate) -> None:
    """Instruction, demonstrations and choices stay; in the query stand N/A, [MASK] and nothing."""
    prompt = completed(films, QUERIES)[0]
    front = prompt.text.removesuffix("Text: the jokes never land\nSentiment:")
    assert [other.text.removeprefix(front) for other in prompt.content_free] == [
        "Text: N/A\nSentiment:",
        "Text: [MASK]\nSentiment:",
        "Text: \nSentiment:",
    ]
    for other in (*prompt.content_free, *prompt.domain):
        assert (other.choices, other.label, other.demonstration_ids) == (prompt.choices, None, ("a",))


def test_domain_texts_are_random_words_of_the_queries(films: BoundTemplate) -> None:
    """Twenty different texts of the queries' words, as many as their texts have on average."""
    texts = [
        other.text.split("Text: ")[-1].removesuffix("\nSentiment:") for other in completed(films, QUERIES)[0].domain
    ]
    words = {word for query in QUERIES for word in query.fields["text"].split()}
    assert len(texts) == DOMAIN_TEXTS
    assert len(set(texts)) > DOMAIN_TEXTS / 2
    assert {word for text in texts for word in text.split()} <= words
    assert {len(text.split()) for text in texts} == {round((4 + 6 + 1) / 3)}


def test_domain_texts_depend_on_the_seed_and_the_set_of_queries(films: BoundTemplate) -> None:
    """Another seed or other queries give other words; another order of the queries the same."""
    first = completed(films, QUERIES)[0].domain
    assert completed(films, QUERIES[::-1])[0].domain == first
    assert completed(films, QUERIES, seed=1)[0].domain != first
    assert completed(films, QUERIES[:2])[0].domain != first


def test_a_word_is_drawn_as_often_as_it_occurs(films: BoundTemplate) -> None:
    """Words are drawn by their frequency in the queries, not by type."""
    queries = [record(str(number), "often " * 9 + "seldom") for number in range(20)]
    text = " ".join(other.text for other in completed(films, queries)[0].domain)
    assert 150 < text.count("often") < 195


def test_prompts_with_the_same_demonstrations_share_them(films: BoundTemplate) -> None:
    """They are built once for each set of demonstrations, and differ where those differ."""
    one, two = completed(films, QUERIES[:2])
    assert one.content_free is two.content_free
    (other,) = completed(films, QUERIES[:1], k=2)
    assert other.content_free != one.content_free


def test_fields_that_are_no_text_stay(films: BoundTemplate) -> None:
    """A number in the query is no free text: it stays, and each of its values has its own prompts."""
    one, two = (
        replace(query, fields={**query.fields, "year": year}) for query, year in zip(QUERIES, (1, 2), strict=False)
    )
    first, second = completed(films, [one, two])
    assert first.content_free is not second.content_free


def test_records_with_choices_of_their_own_have_prompts_of_their_own() -> None:
    """In multiple choice the choices stay in the query, and are what is scored."""
    bound = load_template("multiple-choice/text").bind(load_task("openbookqa"))
    queries = [Record(str(n), {"question": "what is it?"}, 0, choices=(f"a {n}", "a stone")) for n in range(2)]
    for number, prompt in enumerate(completed(bound, queries, k=0, readings=("pmi",))):
        assert prompt.domain == ()
        for other in prompt.content_free:
            assert other.choices == prompt.choices == (f" a {number}", " a stone")
            assert f"a {number}" in other.text
            assert "what is it?" not in other.text


def test_chat_turns_are_rendered_too(films: BoundTemplate) -> None:
    """With chat, content-free prompts have turns like the prompts they belong to."""
    prompt = completed(films, QUERIES, chat=True)[0]
    assert [turn.role for turn in prompt.content_free[0].messages] == [turn.role for turn in prompt.messages]
    assert prompt.content_free[0].messages[-1].content == "Text: N/A\nSentiment:"


def test_nothing_is_built_unless_asked_for(films: BoundTemplate) -> None:
    """Scores that need no content-free prompt get none."""
    for prompt in completed(films, QUERIES, readings=("sum", "token", "batch")):
        assert (prompt.content_free, prompt.domain) == ((), ())
