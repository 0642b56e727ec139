"""Generated data: reproducible, disjoint between splits, balanced, and right about its own labels and sums."""

import itertools
import re

import pytest

from promptkit.data.generate import GENERATORS, SPLITS, generate, split_of
from promptkit.data.generate.aspects import WILL_NOT_RETURN, WILL_RETURN
from promptkit.data.generate.families import HELD_OUT
from promptkit.data.generate.generator import alternatives, sentence
from promptkit.errors import DataError

NAMES = sorted(GENERATORS)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_records(name: str) -> None:
    """Two calls with one seed agree; another seed gives other records."""
    records = list(generate(name, "train", 40, seed=3))
    assert records == list(generate(name, "train", 40, seed=3))
    assert records != list(generate(name, "train", 40, seed=4))


@pytest.mark.parametrize("name", NAMES)
def test_fewer_records_are_a_prefix_of_more(name: str) -> None:
    """The first 50 of 200 records are the 50."""
    assert list(itertools.islice(generate(name, "test", 200), 50)) == list(generate(name, "test", 50))


@pytest.mark.parametrize("name", NAMES)
def test_splits_share_no_text_and_repeat_none(name: str) -> None:
    """No text is in two splits, whatever the seeds, nor twice in one."""
    key = GENERATORS[name].key
    texts = {
        (split, seed): [str(row[key]) for row in generate(name, split, 150, seed=seed)]
        for split in SPLITS
        for seed in (0, 1)
    }
    for (split, _), drawn in texts.items():
        assert len(set(drawn)) == len(drawn)
        assert {split_of(text) for text in drawn} == {split}


@pytest.mark.parametrize("name", [name for name in NAMES if GENERATORS[name].labels])
def test_labels_are_balanced_in_every_block(name: str) -> None:
    """As many records as there are labels hold each label once."""
    labels = GENERATORS[name].labels
    drawn = [row["label"] for row in generate(name, "train", 5 * len(labels))]
    for start in range(0, len(drawn), len(labels)):
        assert sorted(map(str, drawn[start : start + len(labels)])) == sorted(labels)


def test_reviews_and_problems_come_in_any_number() -> None:
    """Three thousand records of a quarter of the space are all different."""
    for name in ("reviews", "word-problems"):
        key = GENERATORS[name].key
        assert len({row[key] for row in generate(name, "test", 3_000)}) == 3_000


def test_each_step_of_a_word_problem_is_right_and_the_last_is_the_answer() -> None:
    """Every "a + b = c." holds, follows from the step before, and the last result is the answer."""
    for row in generate("word-problems", "train", 500):
        steps = re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)\.", str(row["rationale"]))
        assert 1 <= len(steps) <= 3
        assert " ".join(f"{a} {sign} {b} = {c}." for a, sign, b, c in steps) == row["rationale"]
        results = [int(c) for *_, c in steps]
        for a, sign, b, c in steps:
            assert {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}.get(sign, int(a) / int(b)) == int(
                c
            )
        assert [int(a) for a, *_ in steps[1:]] == results[:-1]
        assert all(0 <= result <= 99 for result in results)
        assert row["answer"] == str(results[-1])


def test_the_numbers_of_a_word_problem_stand_in_its_question() -> None:
    """The operands that no earlier step made are told in the story."""
    for row in generate("word-problems", "test", 300):
        told = re.findall(r"\d+", str(row["question"]))
        made = re.findall(r"= (\d+)", str(row["rationale"]))
        for left, right in re.findall(r"(\d+) [-+*/] (\d+)", str(row["rationale"])):
            assert left in told + made
            assert right in told


def test_a_review_has_the_label_that_its_rules_give() -> None:
    """Closing verdict, else deciding aspect, else majority, read back from the rationale's own reading."""
    for row in generate("reviews", "train", 1_000):
        assert row["label"] == _label_by_rule(str(row["rationale"])), row


def test_a_closing_verdict_is_the_label() -> None:
    """Words on coming back settle the label, whatever was said before."""
    closings = {sentence(words, "").lower(): "positive" for words in alternatives(WILL_RETURN)}
    closings |= {sentence(words, "").lower(): "negative" for words in alternatives(WILL_NOT_RETURN)}
    found = 0
    for row in generate("reviews", "test", 500):
        last = re.split(r"(?<=[.!;]) ", str(row["text"]))[-1].rstrip(".!").lower()
        if last in closings:
            found += 1
            assert row["label"] == closings[last]
    assert found > 50


@pytest.mark.parametrize("name", NAMES)
def test_texts_are_clean_english(name: str) -> None:
    """Letters, digits and common marks only: no slot is left open, no space is doubled, sentences start big."""
    for row in generate(name, "train", 400):
        text = str(row[GENERATORS[name].key])
        assert re.fullmatch(r"[A-Za-z0-9 ,.;:!?'-]+", text), text
        assert "  " not in text
        assert name == "word-groups" or not re.search(r"[.?] [a-z]", text), text


def test_rationales_are_short() -> None:
    """A rationale takes at most 40 words."""
    for name in ("reviews", "gadgets", "word-problems"):
        assert max(len(str(row["rationale"]).split()) for row in generate(name, "train", 300)) <= 40


def test_an_unknown_name_is_answered_with_the_nearest_one() -> None:
    """The error lists the generators and suggests one."""
    with pytest.raises(DataError, match=r"'review'.*word-problems.*Did you mean 'reviews'\?"):
        generate("review", "train", 3)


def test_an_unknown_split_is_answered_with_the_known_ones() -> None:
    """The error names the generator, the split and the splits there are."""
    with pytest.raises(DataError, match=r"generator reviews: no split 'dev'; there are train, validation, test"):
        generate("reviews", "dev", 3)


def test_a_negative_number_of_records_is_refused() -> None:
    """The error says what was asked for."""
    with pytest.raises(DataError, match="number of records is -1"):
        generate("reviews", "train", -1)


def test_the_held_out_family_exists() -> None:
    """The family that the embedded model never sees is one of the generators."""
    assert HELD_OUT in GENERATORS


def _label_by_rule(rationale: str) -> str:
    """Apply the rules of `promptkit.data.generate.reviews` to what a rationale says of each aspect."""
    if "come back" in rationale:
        return "negative" if "not come back" in rationale else "positive"
    meant = dict(re.findall(r"The (\w+) is (good|bad)\.", rationale))
    if decides := re.search(r"The (\w+) decides", rationale):
        return "positive" if meant[decides[1]] == "good" else "negative"
    if ignored := re.search(r"The (\w+) does not count", rationale):
        del meant[ignored[1]]
    praises = sum(word == "good" for word in meant.values())
    assert praises * 2 != len(meant)
    return "positive" if praises * 2 > len(meant) else "negative"
