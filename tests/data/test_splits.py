"""One place says which records are trained on and which are tested on, for every verb."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptkit.building import make_set
from promptkit.building.build import iterate_prompts
from promptkit.data.copies import find_overlap, find_tested, keep_all, normalize_text, survey_records
from promptkit.data.record import Record
from promptkit.data.splits import load_splits, load_training, note_unlearned
from promptkit.data.tasks import load_task
from promptkit.errors import DataError
from tests.conftest import Project

WORDS = ["zor", "mip", "tal", "bex", "kun", "fad", "lir", "wop", "ser", "dun"]


def write(project: Project, name: str, texts: list[str], labels: int = 2) -> None:
    rows = [{"sentence": text, "label": number % labels} for number, text in enumerate(texts)]
    project.write(name, "".join(json.dumps(row) + "\n" for row in rows))


def invent(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=12)) for _ in range(count)]


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_one_file_is_cut_in_the_same_place_for_every_verb(project: Project, seed: int) -> None:
    """Whatever its seed and limits are, no command trains on a record that another one tests on."""
    write(project, "one.jsonl", invent(50))
    task = load_task("films")
    tested = {record.id for record in load_splits(task, data="one.jsonl").test}
    assert len(tested) == 25
    compared = load_splits(task, data="one.jsonl", limit=10, train_limit=12, seed=seed)
    scored = load_splits(task, data="one.jsonl", seed=seed, pool=False, cut=True)
    prompts = iterate_prompts(task, "films/plain", data="one.jsonl", seed=seed, k=2)
    shown = list(prompts)
    training = load_training(task, data="one.jsonl", seed=seed)
    built = [row["id"] for row in make_set(task, "films/plain", data="one.jsonl", seed=seed, copies="near").rows()]
    assert {record.id for record in compared.test} <= tested
    assert {record.id for record in scored.test} == {prompt.id for prompt in shown} == tested
    trained = [record.id for record in (*compared.pool, *compared.validation, *training.rows, *training.validation)]
    learned = {*built, *trained, *(name for prompt in shown for name in prompt.demonstration_ids)}
    assert not learned & tested
    assert "one.jsonl is one file: 25 records were set aside for the test, 25 for training" in training.notes
    assert training.notes == compared.notes
    assert load_splits(task, data="one.jsonl", pool=False).notes == ()


def test_one_record_cannot_be_cut(project: Project) -> None:
    """A file of one record is too few to train on and test on."""
    write(project, "one.jsonl", ["only this"])
    with pytest.raises(DataError, match=r"one\.jsonl: one record cannot be both tested on and learned from"):
        load_training(load_task("films"), data="one.jsonl")


def test_copies_of_tested_records_are_left_out_as_in_a_training_set(project: Project) -> None:
    """Exact and near copies of test and validation records are in no pool and no training set, and counted alike."""
    train, test, validation = invent(60), invent(20, seed=1), invent(20, seed=2)
    leaks = [test[3], test[4].upper(), f"“{test[5]}”!", validation[2], f"  {validation[3]}."]
    write(project, "data/train.jsonl", [*leaks, *train])
    write(project, "data/test.jsonl", test)
    write(project, "data/validation.jsonl", validation)
    task = load_task("films")
    wanted = {f"train-{number}" for number in range(5, 65)}
    built = make_set(task, "films/plain", data="data", copies="near")
    assert {row["id"] for row in built.rows()} == wanted
    assert sum(built.candidates["films"].findings.count().values()) == len(leaks)
    training, splits = load_training(task, data="data"), load_splits(task, data="data", limit=2)
    for rows in (training.rows, splits.pool):
        assert {record.id for record in rows} == wanted
    assert training.notes == splits.notes
    assert training.notes == (
        "3 training records that are also test records were left out, 2 of them nearly the same",
        "2 training records that are also validation records were left out, 1 of them nearly the same",
    )


def test_records_set_aside_for_validation_have_no_copy_in_training(project: Project) -> None:
    """Without a validation split, what is set aside is kept apart from its copies among the rest."""
    texts = invent(40)
    write(project, "data/train.jsonl", [*texts, *texts])
    write(project, "data/test.jsonl", invent(4, seed=3))
    training = load_training(load_task("films"), data="data")
    asked = [{record.fields["text"] for record in rows} for rows in (training.validation, training.rows)]
    assert len(training.validation) == 8
    assert not asked[0] & asked[1]


def test_a_folder_without_a_test_says_so(project: Project) -> None:
    """Where there is nothing to compare with, training goes on and says so."""
    write(project, "only/train.jsonl", invent(20))
    training = load_training(load_task("films"), data="only")
    assert len(training.rows) == 18
    assert training.notes == ("there is no test split of its own to compare the training records with",)


TEXTS = st.lists(st.text(alphabet=st.sampled_from("aB ßé'-.!\n3"), max_size=8), max_size=6)


@given(TEXTS, TEXTS)
def test_the_short_way_finds_what_the_long_way_finds(texts: list[str], others: list[str]) -> None:
    """Looking closely at records of the same letters alone leaves out none that a full survey finds."""
    records, tested = (
        [Record(str(number), {"text": text}, 0) for number, text in enumerate(some)] for some in (texts, others)
    )
    whole = find_overlap(
        survey_records(records, seed=0), keep_all(len(records)), {"test": survey_records(tested, seed=0)}, near=True
    )
    assert find_tested(records, {"test": tested}).count() == whole.count()
    assert normalize_text("A  b.") == normalize_text("a b")


def test_labels_that_are_not_learned_are_named(project: Project) -> None:
    """Labels without a training row are in one note, with the sizes of the sets that lack them."""
    task = load_task("films")
    assert note_unlearned(task, [[0, 0, 0, 0, 1]]) == []
    (note,) = note_unlearned(task, [[0, 0], [0, 0, 0, 0]])
    assert note.startswith(
        "warning: task 'films', trained on 2 or 4 rows: no training row has the label 'positive', which will hardly"
    )
