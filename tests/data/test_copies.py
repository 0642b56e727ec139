"""Which records are copies of one another, or of records that are tested on."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptkit.building.build import iterate_prompts
from promptkit.data.copies import Findings, find_copies, find_overlap, keep_all, normalize_text, survey_records
from promptkit.data.record import Record
from promptkit.errors import PromptkitWarning

TEXTS = st.text("ab .", max_size=4)


def records(texts: list[str], labels: list[int] | None = None) -> list[Record]:
    """Return a record per text, its place the id."""
    return [Record(str(place), {"text": text}, labels[place] if labels else 0) for place, text in enumerate(texts)]


def clean(found: list[Record], *, near: bool) -> Findings:
    """Return what is found in one source."""
    survey = survey_records(found, seed=0)
    return find_copies([survey], [keep_all(len(found))], ["q"], near=near)[0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A fine film .", "a fine film."),
        ("did n't work", "didn't work"),
        ("“Yes”, he said —", '"yes" he said'),
        ("tabs\tand\n lines", "tabs and lines"),
        ("ｆｕｌｌ", "full"),
        ("zero\u200bwidth", "zerowidth"),
        ("it 's hers , can not be", "it’s hers, cannot be"),
        ("g . i . jane", "G.I. Jane"),
        ("a well - known one", "a well-known one"),
        ("either\\/or", "either / or"),
        ("50 % of C #", "50% of C#"),
        ('He read "1984" twice', "he read 1984 twice"),
        ("won, 5 to 3", "won 5 to 3"),
        ("`` quoted '' and ``quoted''", '"quoted" and "quoted"'),
        ("the dogs' tails in the 1990's", "the dogs’ tails in the 1990s"),
        ("it ends here. 5 people went", "it ends here 5 people went"),
        ("good -- or good —or good", "good or good or good"),
    ],
)
def test_case_spaces_and_punctuation_do_not_count(one: str, other: str) -> None:
    """Texts that a tokenizer or an editor made different are the same."""
    assert normalize_text(one) == normalize_text(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 2 - 3?", "What is 2 + 3?"),
        ("1.5 cups", "15 cups"),
        ("1 5 cups", "15 cups"),
        ("at -5 degrees", "at 5 degrees"),
        ("2 / 3", "2 * 3"),
        ("$5", "5"),
        ("loved it 😀", "loved it 😡"),
        ("x < y", "x > y"),
        ("5 - x", "5x"),
        ("a * b", "a / b"),
        ("50% of 20", "50 of 20"),
        ("in C#", "in C"),
        ("now here", "nowhere"),
        ("they're", "they re-read"),
        ("p != q", "p = q"),
        ("p && !q", "p && q"),
        ("uniq -x", "uniq x"),
        ("Solve -x + 3 = 5", "Solve x + 3 = 5"),
        ("x*-y", "x*y"),
        ("a-b", "a b"),
        ("f'(x)", "f(x)"),
        ("f''(x)", "f'(x)"),
        ("he'll go", "hell go"),
        ("1,000 men", "1 000 men"),
        ("(2 + 3) * 4", "2 + 3 * 4"),
    ],
)
def test_what_makes_another_question_counts(one: str, other: str) -> None:
    """Signs that make a number another one, and symbols, are kept apart."""
    assert normalize_text(one) != normalize_text(other)


def test_texts_of_punctuation_alone_are_not_all_the_same() -> None:
    """Where nothing is left of a text, it is compared as it stands."""
    assert clean(records(["!", "?", "!"]), near=True).count() == {"a copy of another record": 1}


@pytest.mark.parametrize("near", [True, False])
def test_the_borders_of_fields_count(near: bool) -> None:
    """The same words that are parted otherwise among two fields, or among the texts of a list, are another record."""
    pairs = [("He left.", "Early today he slept."), ("He left. Early", "today he slept."), ("He left.\nEarly", "today")]
    found = [Record(str(place), {"first": one, "second": other}, 0) for place, (one, other) in enumerate(pairs)]
    found += [Record(f"l{place}", {"texts": texts}, 0) for place, texts in enumerate([["a b", "c"], ["a", "b c"]])]
    assert clean(found, near=near).count() == {}
    again = Record("again", {"first": "he left", "second": "EARLY today , he slept"}, 0)
    assert len(clean([*found, again], near=True).count()) == 1


@pytest.mark.parametrize("near", [True, False])
def test_the_borders_of_lists_count(near: bool) -> None:
    """Lists with the same texts otherwise divided ask something else, and a list of one is no text."""
    values: list[tuple[object, object]] = [(["p"], ["q", "r"]), (["p", "q"], ["r"]), ("p", ["q", "r"])]
    found = [Record(str(n), {"x": x, "y": y}, 0) for n, (x, y) in enumerate(values)]
    assert clean(found, near=near).count() == {}
    assert clean([Record("a", {"x": ["p"]}, 0), Record("b", {"x": "p"}, 0)], near=near).count() == {}


def test_exact_leaves_near_copies() -> None:
    """With `exact` only the very same texts are copies; `near` tells the two kinds apart."""
    found = records(["a b", "a b", "A b."])
    assert clean(found, near=False).count() == {"a copy of another record": 1}
    counted = clean(found, near=True).count()
    assert sum(counted.values()) == 2
    assert "nearly a copy of another record" in counted


@given(st.lists(TEXTS, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_what_stays_does_not_depend_on_the_order(texts: list[str], rng: random.Random) -> None:
    """One record of every text stays, and it is the same one in whatever order the records come."""
    found = records(texts)
    shuffled = rng.sample(found, len(found))
    for near in (True, False):
        first = {record.id for record, kept in zip(found, clean(found, near=near).kept, strict=True) if kept}
        second = {record.id for record, kept in zip(shuffled, clean(shuffled, near=near).kept, strict=True) if kept}
        assert first == second
        keys = {(normalize_text(text) or text) if near else text for text in texts}
        assert len(first) == len(keys)


@given(st.lists(TEXTS, max_size=8), st.lists(TEXTS, max_size=8))
def test_no_tested_record_stays(texts: list[str], tested: list[str]) -> None:
    """What is left shares no text with what is tested on, and nothing else is taken away."""
    found = records(texts)
    other = {"the test split of t": survey_records(records(tested), seed=0)}
    for near in (True, False):
        findings = find_overlap(survey_records(found, seed=0), keep_all(len(found)), other, near=near)
        key = (lambda text: normalize_text(text) or text) if near else str
        kept = [record.id for record, stays in zip(found, findings.kept, strict=True) if stays]
        assert kept == [record.id for record in found if key(record.fields["text"]) not in set(map(key, tested))]


def test_sources_of_one_question_share_no_record() -> None:
    """A text in two tasks that ask the same stays once, in the first where ranks are equal; another question is
    another record."""
    surveys = [survey_records(records(["a", "b"]), seed=0), survey_records(records(["a", "c"]), seed=0)]
    none = [keep_all(2), keep_all(2)]
    assert [found.kept.tolist() for found in find_copies(surveys, none, ["q", "q"], near=True)] == [
        [True, True],
        [False, True],
    ]
    assert all(found.kept.all() for found in find_copies(surveys, none, ["q", "p"], near=True))


def test_copies_with_another_answer_are_counted() -> None:
    """A removed copy whose label is not that of the record that stays is counted."""
    assert clean(records(["a", "a", "b", "b"], [0, 1, 1, 1]), near=True).conflicts == 1


def test_demonstrations_of_built_prompts_are_no_copies_of_tested_records(tmp_path: Path) -> None:
    """What a test record asks is no demonstration of another one's prompt either, as in `score`; it is said once."""
    rows = {"train": ["the soup is cold", "a fine film", "dull at length"], "test": ["The soup is cold!", "so long"]}
    for split, texts in rows.items():
        lines = [f"{text},{place % 2}\n" for place, text in enumerate(texts)]
        (tmp_path / f"{split}.csv").write_text("sentence,label\n" + "".join(lines))
    with pytest.warns(PromptkitWarning, match="1 training records that are also test records were left out"):
        prompts = list(iterate_prompts("sst2", "sentiment/plain", k=2, selection="random", data=tmp_path))
    assert {name for prompt in prompts for name in prompt.demonstration_ids} == {"train-1", "train-2"}
