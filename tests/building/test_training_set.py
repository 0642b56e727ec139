"""Training sets: what is in them, in which words, and what they do not depend on."""

from __future__ import annotations

import itertools
import json
import math
import pickle
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import promptkit as pk
from promptkit.building import TrainingSet, make_mixture, make_set
from promptkit.building.build import iterate_pairs
from promptkit.data.record import Record
from promptkit.data.splits import load_splits
from promptkit.data.tasks import load_task
from promptkit.errors import DataError, PromptkitWarning, SelectionError, TaskError, TemplateError
from promptkit.templating.template import load_template
from tests.conftest import TEMPLATE, Project

WORDS = ["soup", "film", "bread", "song", "chair", "lamp", "river", "stone", "cloud", "button", "garden", "winter"]
COT = """\
{% macro input(text) %}{{ text }} Why?{% endmacro %}
{% macro rationale(rationale) %} {{ rationale }}{% endmacro %}
{% macro target(label) %} So {{ label }}.{% endmacro %}
"""
FREE = """\
{% set answer = "(.*)" %}
{% macro input(text) %}{{ text }}{% endmacro %}
{% macro target(label) %} {{ label }}{% endmacro %}
"""


def sentence(number: int) -> str:
    """Return a sentence that no other number has."""
    return f"the {WORDS[number % 12]} was number {number}"


def lines(numbers: Any, **more: Any) -> str:
    """Return JSON lines of records with ids of their own, every third of which is negative."""
    return "".join(
        json.dumps({"id": f"r{n}", "sentence": sentence(n), "label": int(n % 3 > 0), **more}) + "\n" for n in numbers
    )


@pytest.fixture
def sets(project: Project) -> Project:
    """The project with 60 training, 10 validation and 20 test records, and a second template."""
    project.write("data/train.jsonl", lines(range(60)))
    project.write("data/validation.jsonl", lines(range(100, 110)))
    project.write("data/test.jsonl", lines(range(200, 220)))
    project.write("templates/films/terse.jinja", TEMPLATE.replace("Text: ", "").replace("Sentiment:", "->"))
    return project


def make(template: Any = "films/plain", **given: Any) -> TrainingSet:
    """Return a set of the films."""
    return make_set("films", template, **{"data": "data", **given})


def build(template: Any = "films/plain", **given: Any) -> list[dict[str, Any]]:
    """Return the rows of a set of the films."""
    return list(make(template, **given).rows())


def ids(rows: list[dict[str, Any]]) -> list[str]:
    """Return the ids of rows."""
    return [row["id"] for row in rows]


def test_a_plain_set_is_what_build_pairs_always_made(sets: Project) -> None:
    """Without draws, the rows are those of the batched builder, in the same order, limited or not."""
    for limit in ({}, {"limit": 7}):
        plain = list(iterate_pairs("films", "films/plain", data="data", **limit))
        assert build(epochs=1, **limit) == plain


def test_templates_are_drawn_by_weight(sets: Project) -> None:
    """With weights one template is drawn for every row, anew in every epoch; rates are within the binomial."""
    rows = build({"films/plain": 2.0, "films/terse": 1.0}, epochs=20)
    assert Counter(row["epoch"] for row in rows) == dict.fromkeys(range(20), 60)
    plain = sum(row["template"] == "films/plain" for row in rows)
    assert abs(plain - 800) < 4 * math.sqrt(1200 * 2 / 9)
    of_one = [row["template"] for row in rows if row["id"] == "r0"]
    assert set(of_one) == {"films/plain", "films/terse"}


def test_a_template_s_own_weight_comes_before_that_of_a_glob(sets: Project) -> None:
    """Whatever the order they are given in; two globs that say different things of one template are an error."""
    for weights in ({"plain": 1e6, "*": 1}, {"*": 1, "plain": 1e6}):
        assert {row["template"] for row in build(weights)} == {"films/plain"}
    with pytest.raises(
        TemplateError, match=r"films: 'p\*' and '\*n' give template 'films/plain' two weights; give one"
    ):
        build({"p*": 1, "*n": 2})


def test_what_does_not_exist_is_named_before_it_is_needed(sets: Project) -> None:
    """A selection and an order by a wrong name, also where nothing is shown; of several tasks, whose they are."""
    for wrong in ({"selection": "balanecd"}, {"order": "balanecd"}):
        with pytest.raises(SelectionError, match=r"unknown (selection|order) 'balanecd'; known: "):
            build(**wrong)
    with pytest.raises(TaskError, match=r"\[tasks.nope\]: unknown task 'nope'"):
        TrainingSet(make_mixture({"tasks": {"films": {"data": "data"}, "nope": {}}}, "here"))
    with pytest.raises(DataError, match="templates are given as the second argument"):
        pk.build_pairs("films", "films/plain", data="data", templates=["films/terse"])
    with pytest.raises(DataError, match="limit is '5'; a whole number from 1"):
        pk.build_pairs("films", "films/plain", data="data", limit="5")
    sets.write("two.toml", "[tasks.films]")
    with pytest.raises(DataError, match="a mixture names its templates itself"):
        pk.build_pairs("two.toml", "films/plain")


def test_without_weights_every_record_is_in_every_template(sets: Project) -> None:
    """Names alone, or `per_record` all, put a record in each; a number draws so many different ones."""
    both = ["films/plain", "films/terse"]
    assert Counter((row["id"], row["template"]) for row in build(both)).most_common(1)[0][1] == 1
    assert len(build(both)) == 120 == len(build({"films/plain": 2.0, "films/terse": 1.0}, per_record="all"))
    assert len(build(both, per_record=1)) == 60
    with pytest.raises(DataError, match="3 templates per record were asked for, 2 are there"):
        build(both, per_record=3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=8)
@given(st.randoms(use_true_random=False), st.integers(1, 5))
def test_nothing_depends_on_workers_or_the_order_of_records(sets: Project, rng: random.Random, workers: int) -> None:
    """The shares of any number of workers are together the same rows; other orders of the data give the same rows."""
    asked: dict[str, Any] = {"epochs": 2, "k": (0, 2), "labels": ["own", "swapped", "random"], "copies": "near"}
    way = {"films/plain": 1.0, "films/terse": 3.0}
    whole = make(way, limit=20, **asked)
    rows = list(whole.rows())
    shares = [list(whole.rows(share, workers)) for share in range(workers)]
    assert [row for turn in itertools.zip_longest(*shares) for row in turn if row] == rows
    numbers = rng.sample(range(60), 60)
    sets.write("shuffled/train.jsonl", lines(numbers))
    for split in ("validation", "test"):
        sets.write(f"shuffled/{split}.jsonl", Path(f"data/{split}.jsonl").read_bytes())
    assert build(way, limit=20, **asked, data="shuffled") == rows
    every = build(way, **asked, data="shuffled")
    assert sorted(map(repr, every)) == sorted(map(repr, build(way, **asked)))


def test_smaller_sets_are_the_beginning_of_larger_ones(sets: Project) -> None:
    """Under one seed a smaller limit is a prefix, balanced or not, and within each label too."""
    for balance in (False, True):
        large = build({"films/plain": 1.0, "films/terse": 1.0}, limit=40, balance=balance)
        for limit in (1, 2, 7, 20, 39):
            small = build({"films/plain": 1.0, "films/terse": 1.0}, limit=limit, balance=balance)
            assert small == large[:limit]
            for label in (0, 1):
                own = [row for row in large if row["label"] == label]
                assert [row for row in small if row["label"] == label] == own[
                    : sum(row["label"] == label for row in small)
                ]
        assert ids(build(limit=40, balance=balance, seed=1)) != ids(large)


def test_balance_has_as_many_of_each_label(sets: Project) -> None:
    """Balanced sets differ by one record per label at most, and end where the rarest label does."""
    assert Counter(row["label"] for row in build(balance=True)) == {0: 20, 1: 20}
    assert Counter(row["label"] for row in build(epochs=1)) == {0: 20, 1: 40}
    for limit in (3, 8, 31):
        counts = Counter(row["label"] for row in build(balance=True, limit=limit))
        assert abs(counts[0] - counts[1]) <= 1
    assert len(build(balance=True, limit=1000)) == 40
    sets.write("data/train.jsonl", lines(n for n in range(60) if n % 3))
    with pytest.raises(DataError, match="no record has the label 'negative'"):
        build(balance=True)


def test_nothing_that_is_tested_is_trained_on(sets: Project) -> None:
    """Copies of test and validation records, near ones too, leave the training split; the report says which."""
    copied = [(1, sentence(200)), (1, sentence(100).upper()), (0, sentence(5)), (1, sentence(6) + " !")]
    more = [json.dumps({"id": f"c{n}", "sentence": text, "label": y}) for n, (y, text) in enumerate(copied)]
    sets.write("data/train.jsonl", lines(range(60)) + "\n".join(more))
    made = make(copies="near")
    counts = made.candidates["films"].findings.count()
    assert counts["in the test split of films"] == counts["nearly in the validation split of films"] == 1
    assert sum(counts.values()) == 4
    assert not {"c0", "c1"} & set(ids(list(made.rows())))
    assert len(ids(list(made.rows()))) == 60
    assert len(build(copies="exact")) == 62
    assert len(build(copies="keep")) == 64
    removed = made.candidates["films"].removed_ids(10)
    assert removed["in the test split of films"] == ["c0"]
    assert {name for names in removed.values() for name in names} >= {"c0", "c1"}


def test_nothing_but_plain_pairs_keeps_what_is_tested(sets: Project) -> None:
    """Any setting of a training set leaves out copies and what is tested on, and so does a second template; one split
    in one template is written as it is, for any number of workers."""
    sets.write("data/train.jsonl", lines(range(60)) + lines([200, 5]))
    for setting in ({"epochs": 1}, {"hold_out": 10}, {"k": 1}, {"labels": "swapped"}, {"per_record": 1}):
        assert len(pk.build_pairs("films", "films/plain", data="data", **setting)) == 60 - setting.get("hold_out", 0)
    assert len(pk.build_pairs("films", ["films/plain"], data="data")) == 60
    assert len(pk.build_pairs("films", "films/plain", data="data")) == 62
    stream = pk.build_pairs("films", "films/plain", data="data", streaming=True, num_shards=2)
    assert len(list(stream)) == 62


def test_held_out_records_are_validation(sets: Project) -> None:
    """What is held out is the validation set; both parts make up the whole, and more held out holds the same too."""
    Path("data/validation.jsonl").unlink()
    train = ids(build(hold_out=10, copies="near"))
    held = ids(build(hold_out=10, copies="near", split="validation"))
    assert len(held) == 10
    assert sorted(train + held) == sorted(f"r{n}" for n in range(60))
    assert set(held) < set(ids(build(hold_out=20, copies="near", split="validation")))
    assert ids(build(hold_out=10, limit=30)) == ids(build(limit=30, epochs=1))
    shares = {"limit": 5, "epochs": 2, "balance": True}
    assert ids(build(hold_out=10, copies="near", split="validation", **shares)) == held
    with pytest.raises(DataError, match="60 records cannot be held out of 60"):
        build(hold_out=60)


def test_demonstrations_are_drawn_for_every_row(sets: Project) -> None:
    """Rows of k shots show k other records, never their own, other ones in other rows; fewer are the first of more."""
    rows = build(k=4, epochs=2)
    assert all(len(set(row["demonstration_ids"]) - {row["id"]}) == 4 for row in rows)
    assert len({tuple(row["demonstration_ids"]) for row in rows}) > 100
    by_id = {f"r{n}": int(n % 3 > 0) for n in range(60)}
    assert all(sum(by_id[name] for name in row["demonstration_ids"]) == 2 for row in rows)  # balanced by default
    few = build(k=2, epochs=2)
    assert [row["demonstration_ids"] for row in few] == [row["demonstration_ids"][:2] for row in rows]
    assert all(row["prompt"].count("Text: ") == 5 for row in rows)
    assert len(build(k=(0, 1, 2))) == 180
    turned = [row["demonstration_ids"][::-1] for row in few]
    assert [row["demonstration_ids"] for row in build(k=2, epochs=2, order=1)] == turned
    assert len({tuple(row["demonstration_ids"]) for row in build(k=2, selection="pinned:r1,r2", limit=9)}) <= 3
    with pytest.raises(SelectionError, match="k=70 demonstrations were asked for"):
        build(k=70, selection="random")


def test_one_file_is_cut_as_a_comparison_cuts_it(sets: Project) -> None:
    """Prompts are of the half that a comparison tests on, pairs and demonstrations of the other, without its copies."""
    sets.write("all.jsonl", lines(range(60)) + lines(range(20)).replace('"r', '"copy'))
    there = load_splits(load_task("films"), data="all.jsonl")
    with pytest.warns(PromptkitWarning, match="training records that are also test records were left out"):
        prompts = pk.build_prompts("films", "films/plain", data="all.jsonl", k=2)
    tested = {record.id for record in there.test}
    assert set(prompts["id"]) == tested
    assert len(prompts) == 40
    assert not {name for names in prompts["demonstration_ids"] for name in names} & tested
    for pairs in (pk.build_pairs("films", "films/plain", data="all.jsonl"), build(data="all.jsonl", k=(0, 1))):
        trained = {row["id"] for row in pairs}
        assert not trained & tested
        numbers = [{int(name.strip("copyr")) for name in names} for names in (trained, tested)]
        assert len(numbers[0]) == len(trained)
        assert not numbers[0] & numbers[1]
        assert numbers[0] | numbers[1] == set(range(60))
    few = pk.build_prompts("films", "films/plain", data="all.jsonl", limit=5)
    assert set(few["id"]) == {record.id for record in load_splits(load_task("films"), data="all.jsonl", limit=5).test}


def test_a_label_without_a_pair_is_told(sets: Project) -> None:
    """`build_pairs` warns of labels that no pair teaches, of one template as of a set."""
    rows = [{"text": f"a film {number}", "label": 0} for number in range(6)]
    for templates in ("films/plain", ["films/plain", "films/plain"]):
        with pytest.warns(PromptkitWarning, match="no training row has the label 'positive'"):
            pk.build_pairs("films", templates, data=rows, split="train")


def test_one_file_is_all_of_a_split_that_is_named(sets: Project) -> None:
    """`train` makes pairs of the whole file, `test` prompts; what is held out is of the half that is trained on."""
    sets.write("all.jsonl", re.sub(r'"id": "r[0-9]+", ', "", lines(range(60))))
    assert len(pk.build_pairs("films", "films/plain", data="all.jsonl", split="train")) == 60
    assert len(pk.build_prompts("films", "films/plain", data="all.jsonl", split="test")) == 60
    train, held = (set(ids(build(data="all.jsonl", hold_out=10, **way))) for way in ({}, {"split": "validation"}))
    tested = set(pk.build_prompts("films", "films/plain", data="all.jsonl")["id"])
    assert (len(train), len(held), len(tested)) == (20, 10, 30)
    assert len(train | held | tested) == 60
    assert held == set(ids(build(data="all.jsonl", hold_out=10, split="train"))) ^ {f"test-{n}" for n in range(60)}


def test_the_pool_holds_nothing_that_is_tested(sets: Project) -> None:
    """Demonstrations come from what is left of the training split; `train_limit` makes the pool smaller."""
    sets.write("data/train.jsonl", lines(range(60)) + lines(range(200, 220)))
    shown = {name for row in build(k=8, copies="near") for name in row["demonstration_ids"]}
    assert shown == {f"r{n}" for n in range(60)}
    assert len({name for row in build(k=2, train_limit=8) for name in row["demonstration_ids"]}) == 8
    tested = build(k=2, split="test", copies="near")
    assert {name for row in tested for name in row["demonstration_ids"]} <= shown


def test_rationales_are_in_the_completion(sets: Project) -> None:
    """A chain-of-thought template teaches rationale and answer, alone or drawn beside others."""
    task = Path("tasks/films.toml").read_text().replace('label = "label"', 'label = "label"\nrationale = "why"')
    sets.write("tasks/films.toml", task)
    sets.write("data/train.jsonl", lines(range(60), why="It says so."))
    sets.write("templates/films/cot.jinja", COT)
    rows = build({"films/cot": 1.0, "films/plain": 1.0}, k=(0, 1))
    reasoned = [row for row in rows if row["template"] == "films/cot"]
    assert 0 < len(reasoned) < len(rows)
    assert all(row["completion"].startswith(" It says so. So ") for row in reasoned)
    assert any(row["prompt"].count("It says so.") == 1 for row in reasoned)
    assert all("It says so." not in row["completion"] for row in rows if row["template"] == "films/plain")


def test_a_glob_takes_what_can_be_taught(sets: Project) -> None:
    """Without rationales in the data a glob leaves out templates that reason; named, they are an error."""
    sets.write("templates/films/cot.jinja", COT)
    assert {row["template"] for row in build("*", epochs=1)} == {"films/plain", "films/terse"}
    assert len(build("*", per_record=2, limit=7)) == 14
    with pytest.raises(
        TemplateError, match=r"templates/films/cot\.jinja:2: films/cot reasons .* 'r0' has no rationale"
    ):
        build("cot")
    with pytest.raises(TemplateError, match=r"films: all templates that match 'co\*' reason before they answer"):
        build("co*")


@pytest.mark.parametrize(
    "given",
    [
        {"num_shards": 2, "labels": ["own", "swapped"], "k": (0, 2), "limit": 10, "copies": "near"},
        {"num_shards": 2},
        {},
    ],
)
def test_streams_go_to_spawned_workers(sets: Project, given: dict[str, Any]) -> None:
    """Workers that begin as new processes, as on macOS and Windows, render the same rows."""
    stream = pk.build_pairs("films", "films/plain", data="data", streaming=True, **given)
    rows = list(stream)
    loader = DataLoader(
        stream.select_columns(["prompt"]), batch_size=None, num_workers=1, multiprocessing_context="spawn"
    )
    assert [row["prompt"] for row in loader] == [row["prompt"] for row in rows]


def test_what_renders_can_be_sent_to_another_process(sets: Project) -> None:
    """A set, a template and one bound to a task say the same after they were pickled, also when they were used."""
    made = make({"films/plain": 1.0, "films/terse": 1.0}, labels=["own", "random"], k=(0, 2), epochs=2)
    rows = list(made.rows())
    assert list(pickle.loads(pickle.dumps(made)).rows()) == rows
    template = pickle.loads(pickle.dumps(load_template("films/plain")))
    bound = pickle.loads(pickle.dumps(template.bind(load_task("films"))))
    assert bound.input(Record("r", {"text": "x"}, 0)) == "Text: x\nSentiment:"
    prompts = pk.build_prompts("films", "films/plain", data="data", k=2, streaming=True)
    assert list(pickle.loads(pickle.dumps(prompts))) == list(prompts)


@pytest.mark.parametrize("streaming", [True, False])
def test_no_shards_are_refused(sets: Project, streaming: bool) -> None:
    """No workers are no rows, which nobody can have meant."""
    with pytest.raises(DataError, match="num_shards is 0: expected 1 or more"):
        pk.build_pairs("films", "films/plain", data="data", streaming=streaming, num_shards=0)


def test_an_empty_file_is_named(sets: Project) -> None:
    """Where there is nothing to make rows of, the file is named, and not only its split."""
    sets.write("data/train.jsonl", "")
    with pytest.raises(DataError, match=r"^data/train\.jsonl: holds no records, which the rows of 'films' are made of"):
        make("films/plain")


def test_streams_can_be_shared_among_workers(sets: Project) -> None:
    """A streamed set has as many shards as asked for, which hold each row once."""
    stream = pk.build_pairs("films", "films/plain", data="data", epochs=2, streaming=True, num_shards=4)
    rows = build(epochs=2)
    assert stream.num_shards == 4
    assert sorted(map(repr, stream)) == sorted(map(repr, rows))
    first = stream.shard(num_shards=4, index=0)
    assert list(first) == rows[::4]


def test_the_first_demonstrations_are_the_first_of_the_data(sets: Project) -> None:
    """`first` means in pairs what it means in prompts."""
    rows = pk.build_pairs("films", "films/plain", data="data", k=3, selection="first", copies="keep")
    shown = {row["id"]: row["demonstration_ids"] for row in rows}
    assert shown.pop("r0") == ["r1", "r2", "r3"]
    assert shown["r59"] == ["r0", "r1", "r2"]


def test_templates_may_be_paths(sets: Project) -> None:
    """One path or several are templates as their names are."""
    path = Path("templates/films/plain.jinja")
    rows = [pk.build_pairs("films", given, data="data")["prompt"] for given in (path, [path], str(path))]
    assert sorted(rows[0]) == sorted(rows[1]) == sorted(rows[2])


def test_errors_are_found_before_the_first_row(sets: Project) -> None:
    """Settings that do not go together are refused when the set is made."""
    with pytest.raises(TemplateError, match="no template matches 'nothing'"):
        make("nothing")
    with pytest.raises(DataError, match=r"training set of 'films': epochs: found 0"):
        make(epochs=0)
    with pytest.raises(DataError, match=r"nonsense: unknown setting"):
        make(nonsense=1)
    with pytest.raises(DataError, match="a mixture names its templates itself"):
        make_set(make_mixture({"tasks": {"films": {}}}, "here"), "films/plain")
    sets.write("data/train.jsonl", Path("data/test.jsonl").read_bytes())
    with pytest.raises(DataError, match=r"no records are left of split 'train' of task 'films' \(all 20 were left out"):
        make(copies="near")
