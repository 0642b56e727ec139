"""Demonstrations with other labels and rationales: which change, how, and which never do."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptkit.data.record import Record
from promptkit.data.records import load_records
from promptkit.data.tasks import load_task
from promptkit.demonstrations.corruption import (
    ENGLISH_WORDS,
    RATIONALES,
    DemoLabels,
    Rationales,
    parse_labels,
    parse_rationale,
    relabel,
)
from promptkit.errors import SelectionError, TemplateError
from promptkit.templating.template import BoundTemplate, load_template

TOPICS = load_template("topic/plain").bind(load_task("agnews"))
seeds = st.integers(0, 2**32)


def topic(number: int) -> Record:
    """A record of a task with four labels."""
    return Record(f"train-{number}", {"text": f"text {number}"}, number % 4)


POOL = [topic(number) for number in range(400)]


def labels(name: str, seed: int = 0, pool: list[Record] = POOL) -> list[int | str | None]:
    """The labels of a pool after relabelling."""
    return [record.label for record in relabel(pool, parse_labels(name), TOPICS, seed=seed)]


@given(st.integers(0, 100), st.integers(0, 100), seeds)
def test_flips_are_nested_in_the_rate(one: int, two: int, seed: int) -> None:
    """What is flipped at a rate is flipped to the same wrong label at every higher rate."""
    low, high = labels(f"flipped-{min(one, two)}", seed), labels(f"flipped-{max(one, two)}", seed)
    for record, less, more in zip(POOL, low, high, strict=True):
        assert less in (record.label, more)


def test_flips_are_as_many_as_asked_for() -> None:
    """None at 0, all at 100, about the share in between; every wrong label is drawn."""
    gold = [record.label for record in POOL]
    assert labels("gold") == labels("flipped-0") == gold
    assert not any(a == b for a, b in zip(labels("flipped-100"), gold, strict=True))
    assert 75 < sum(a != b for a, b in zip(labels("flipped-25"), gold, strict=True)) < 125
    moved = Counter((int(a or 0) - int(b or 0)) % 4 for a, b in zip(labels("flipped-100"), gold, strict=True))
    assert min(moved[step] for step in (1, 2, 3)) > 100


def test_random_labels_are_uniform_and_may_be_right() -> None:
    """Each label is drawn about equally often, whatever the gold label."""
    drawn = labels("random")
    assert min(Counter(drawn).values()) > 70
    assert 70 < sum(a == record.label for a, record in zip(drawn, POOL, strict=True)) < 130


@given(st.sampled_from(["random", "flipped-50", "words"]), seeds, st.permutations(POOL[:12]))
def test_labels_depend_on_the_seed_and_the_record_alone(name: str, seed: int, pool: list[Record]) -> None:
    """Alone, in any order and among others a record gets the same label, and keeps everything else."""
    together = {record.id: record for record in relabel(pool, parse_labels(name), TOPICS, seed=seed)}
    for record in pool:
        (alone,) = relabel([record], parse_labels(name), TOPICS, seed=seed)
        assert alone == together[record.id]
        assert (alone.id, alone.fields) == (record.id, record.fields)
    assert labels(name, seed) != labels(name, seed + 1)


def test_words_stand_in_place_of_labels() -> None:
    """As many English words as labels are shown in demonstrations, and none of them names a label."""
    shown = {TOPICS.target(record).strip() for record in relabel(POOL, DemoLabels("words"), TOPICS)}
    assert len(shown) == 4
    assert shown <= set(ENGLISH_WORDS) - set(TOPICS.words)
    assert len(set(ENGLISH_WORDS)) == len(ENGLISH_WORDS)


def test_choices_of_a_record_are_labels_too() -> None:
    """In multiple choice a label is one of the record's own choices."""
    bound = load_template("multiple-choice/text").bind(load_task("openbookqa"))
    record = Record("r", {"question": "q"}, 2, choices=("a", "b", "c"))
    (flipped,) = relabel([record], DemoLabels("flipped", 100), bound)
    assert flipped.label in (0, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flipped", "give a percentage from 0 to 100, such as flipped-50"),
        ("flipped-101", "give a percentage"),
        ("flipped--1", "give a percentage"),
        ("gold-5", "unknown demonstration labels 'gold-5'; known: gold, random, words, flipped-50"),
        ("randm", r"Did you mean 'random'\?"),
    ],
)
def test_label_names_are_checked(text: str, message: str) -> None:
    """A name that is not known, or a rate that is none, is refused."""
    with pytest.raises(SelectionError, match=message):
        parse_labels(text)


@pytest.mark.parametrize("name", ["gold", "random", "words", "flipped-0", "flipped-25", "flipped-100"])
def test_label_names_round_trip(name: str) -> None:
    """Each name is the name of what it stands for."""
    assert parse_labels(name).name == name


def test_labels_that_cannot_be_changed_are_refused() -> None:
    """Free text has no labels to draw, and a template that shows positions has no place for words."""
    problems = load_template("word-problems/plain").bind(load_task("word-problems"))
    free = Record("r", {"question": "q"}, "7")
    with pytest.raises(SelectionError, match="record 'r' of task 'word-problems' has none, use 'gold'"):
        relabel([free], DemoLabels("random"), problems)
    with pytest.raises(SelectionError, match="need fixed labels"):
        relabel([free], DemoLabels("words"), problems)
    letters: BoundTemplate = load_template("sentiment/letters").bind(load_task("reviews"))
    with pytest.raises(TemplateError, match=r"letters.jinja:\d+: target shows a label's position"):
        relabel([], DemoLabels("words"), letters)


PROBLEMS = load_records(load_task("word-problems"), "train", limit=200)


def problem(number: int, rationale: str | None, label: str = "9") -> Record:
    """A record with a rationale."""
    return Record(f"train-{number}", {"question": f"question {number}"}, label, rationale=rationale)


def change(kind: str, rationale: str, label: str = "9", seed: int = 0) -> str:
    """A single rationale, changed."""
    (changed,) = Rationales(kind, [problem(0, rationale, label)], seed=seed)([problem(0, rationale, label)])
    assert changed.rationale is not None
    return changed.rationale


@given(st.sampled_from(RATIONALES), seeds, st.permutations(PROBLEMS[:10]))
def test_rationales_depend_on_seed_record_and_pool_alone(kind: str, seed: int, shown: list[Record]) -> None:
    """A record's rationale is the same alone, in any company and for any order of the pool; its answer stays."""
    together = {record.id: record for record in Rationales(kind, PROBLEMS, seed=seed)(shown)}
    other = Rationales(kind, PROBLEMS[::-1], seed=seed)
    for record in shown:
        (alone,) = other([record])
        assert alone == together[record.id]
        assert (alone.id, alone.label, alone.fields) == (record.id, record.label, record.fields)
        assert kind != "valid" or alone == record


@given(seeds)
def test_numbers_are_replaced_consistently_and_the_answer_is_kept(seed: int) -> None:
    """Equal numbers stay equal, different ones different, the answer's stays, and the words do too."""
    text = "He had 1,080 pears and 12 crates: 1080 / 12 = 90. Then 90 - 81.50 = 8.5, and 0.5 more is 9."
    changed = change("invalid-numbers", text, seed=seed)
    pattern = r"\d[\d,]*(?:\.\d+)?"
    assert re.sub(pattern, "#", changed) == re.sub(pattern, "#", text)
    before, after = ([float(n.replace(",", "")) for n in re.findall(pattern, each)] for each in (text, changed))
    mapping = dict(zip(before, after, strict=True))
    assert [mapping[number] for number in before] == after
    assert len(set(mapping.values())) == len(mapping)
    assert [number for number in mapping if mapping[number] == number] == [9.0]
    assert re.search(r"had \d,\d{3} pears and \d\d crates", changed)
    assert re.search(r"- \d\d\.\d0 =", changed)


def test_changed_numbers_make_no_true_equation() -> None:
    """Where other numbers would make a true equation again, others are drawn."""
    for record in Rationales("invalid-numbers", PROBLEMS, seed=1)(PROBLEMS):
        steps = re.findall(r"(\d+) ([-+*]) (\d+) = (\d+)\.", record.rationale or "")
        true = [step for step in steps if eval(f"{step[0]}{step[1]}{step[2]}") == int(step[3])]
        # 7 - 7 = 0 with the answer 0 is true for any number in place of 7.
        assert all(step[0] == step[2] or "0" in (step[0], step[2]) for step in true), record.rationale
    assert {change("invalid-numbers", "2 + 2 = 4. 4 + 5 = 9.", seed=seed)[:9] for seed in range(30)}.isdisjoint(
        {f"{n} + {n} = {2 * n}" for n in range(10)}
    )


@given(seeds)
def test_steps_are_shuffled_and_none_is_lost(seed: int) -> None:
    """Lines where there are lines, else sentences, in another sequence; what parts them stays in its place."""
    lines = change("shuffled", "a. b\nc. d\ne", seed=seed)
    assert lines != "a. b\nc. d\ne"
    assert sorted(lines.split("\n")) == ["a. b", "c. d", "e"]
    sentences = change("shuffled", "One is 1.5!  Two? Three.", seed=seed)
    assert sentences != "One is 1.5!  Two? Three."
    assert sorted(re.split(r"  ?(?=[OT][nwh])", sentences)) == ["One is 1.5!", "Three.", "Two?"]


def test_a_borrowed_rationale_is_never_the_own_one_nor_the_querys() -> None:
    """The next record of the ranking lends its rationale, unless it says the same or is the query."""
    for shown, lent in zip(PROBLEMS, Rationales("irrelevant", PROBLEMS)(PROBLEMS), strict=True):
        assert lent.rationale != shown.rationale
        assert lent.rationale in {record.rationale for record in PROBLEMS}
    pool = [problem(0, "own"), problem(1, "own"), problem(2, "query's"), problem(3, "other")]
    for seed in range(10):
        (lent,) = Rationales("irrelevant", pool, seed=seed)(pool[:1], query=Record("test-0", pool[2].fields, None))
        assert lent.rationale == "other"


def test_what_cannot_be_changed_stays_or_is_refused() -> None:
    """Single rationales without numbers or steps stay; a pool of them, and a missing rationale, are refused."""
    pool = [problem(0, "No number here"), problem(1, "One is 1. Two is 2.")]
    for kind in ("invalid-numbers", "shuffled"):
        changed = Rationales(kind, pool)(pool)
        assert changed[0] == pool[0]
        assert changed[1] != pool[1]
        with pytest.raises(SelectionError, match=f"rationale '{kind}': none of the 1 records has a rationale with"):
            Rationales(kind, pool[:1])
    with pytest.raises(SelectionError, match="none of the 1 records"):
        Rationales("irrelevant", pool[:1])
    with pytest.raises(SelectionError, match="record 'train-5' has no rationale to change"):
        Rationales("shuffled", pool)([problem(5, None)])
    with pytest.raises(SelectionError, match=r"unknown rationale 'shufled'; .*Did you mean 'shuffled'\?"):
        parse_rationale("shufled")
    assert [parse_rationale(name) for name in RATIONALES] == list(RATIONALES)
