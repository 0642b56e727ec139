"""A method that gives one answer to all records, or does no better than the most frequent label, is said to."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

import promptkit
from promptkit.analysis.sentences import describe_cautions
from promptkit.cli import cli
from promptkit.models import Model
from promptkit.scoring import Prediction, Table
from promptkit.stats.majority import compare_with_majority, describe_majority, find_majority, find_one_answer
from promptkit.stats.metrics import correctness
from tests.conftest import TASK, Project
from tests.helpers.training_fakes import model

ALWAYS = "Always answering 'positive' would be right for 60.0 % of these records"


def test_the_most_frequent_label() -> None:
    """Its share comes with it; of equals the first one is taken."""
    assert find_majority([1, 0, 1, 2]) == (1, 0.5)
    assert find_majority([2, 0, 0, 2]) == (2, 0.5)


def test_one_answer_to_nearly_every_record() -> None:
    """From 95 % of the records on, per run; unread answers are no answer, and of four records nothing is said."""
    nearly, mixed = [0] * 19 + [1], [0] * 18 + [1] * 2
    assert find_one_answer([mixed]) is None
    assert find_one_answer([[None] * 20]) is None
    assert find_one_answer([[0] * 4]) is None
    found = find_one_answer([nearly, mixed, [0] * 20])
    assert found
    assert found.as_dict() == {"runs": 2, "answer": 0, "share": 0.95}
    other = find_one_answer([nearly, [1] * 20])
    assert other
    assert (other.runs, other.answer) == (2, None)


def test_better_is_said_where_it_is_shown() -> None:
    """Right where the majority is wrong on many records is better; on a few it is not shown, whatever the figures."""
    labels = [1] * 60 + [0] * 40
    assert compare_with_majority([correctness(labels, labels)], labels).better
    slightly = compare_with_majority([correctness([1] * 60 + [1] * 37 + [0] * 3, labels)], labels)
    assert (round(slightly.difference, 3), slightly.better) == (0.03, False)
    labels *= 3
    worse = compare_with_majority([correctness([0] * 300, labels)], labels)
    assert worse.difference == pytest.approx(-0.2)
    assert worse.interval.high < 0
    assert not worse.better


def test_draws_are_samples_too() -> None:
    """A method that one choice of demonstrations carries is not shown to be better, however often it was ordered."""
    labels = [1] * 60 + [0] * 40
    good, bad = correctness(labels, labels), correctness([0] * 100, labels)
    assert not compare_with_majority([good, good, bad], labels, groups=[0, 0, 1]).better
    assert compare_with_majority([good, correctness([*labels[:-1], 1], labels)], labels, groups=[0, 1]).better


def test_better_is_rarely_shown_of_what_is_no_better() -> None:
    """A method that answers by dice at the rate of the majority label is called better in at most 5 % of runs."""
    said = 0
    for seed in range(400):
        dice = random.Random(seed)
        labels = [int(dice.random() < 0.6) for _ in range(60)]
        said += compare_with_majority([[int(dice.random() < 0.6) for _ in labels]], labels).better
    assert said <= 0.05 * 400


def _method(name: str, mean: float, answers: list[int], labels: list[int], **more: Any) -> dict[str, Any]:
    figures = describe_majority([answers], [correctness(answers, labels)], labels)
    return {"method": name, "template": "a", "k": 0, "runs": 1, "accuracy": {"mean": mean}, **figures, **more}


def test_at_most_two_sentences() -> None:
    """Every method concerned is counted, and at most three of a kind are named."""
    labels = [1] * 360 + [0] * 240
    many = [_method(f"m{number}", 0.4, [0] * 600, labels) for number in range(5)]
    mixed = [1] * 160 + [0] * 410 + [1] * 30
    methods = [_method("good", 1.0, labels, labels), *many, _method("so-so", 0.62, mixed, labels)]
    one, majority = describe_cautions(methods, ("positive", 0.6), ["negative", "positive"])
    assert one == (
        "One answer is given to 95 % or more of the records: m0 ('negative', 100.0 %), m1 ('negative', 100.0 %), "
        "m2 ('negative', 100.0 %) and 2 more."
    )
    assert majority == (
        f"{ALWAYS}; worse: m0 (40.0 %), m1 (40.0 %), m2 (40.0 %) and 2 more; not shown to be better: so-so (62.0 %)."
    )
    assert describe_cautions(methods[:1], ("positive", 0.6), ["negative", "positive"]) == []


@pytest.fixture
def skewed(project: Project) -> Project:
    """Test records of which 60 % are positive."""
    rows = [{"sentence": f"film {number}", "label": int(number % 5 < 3)} for number in range(40)]
    project.write("data/test.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return project


def answer(index: int) -> Any:
    """A scorer that gives every prompt the same label."""

    def score(model: Model, prompts: Any, **_: Any) -> Table:
        values = tuple(0.0 if place == index else -1.0 for place in range(2))
        return Table(tuple(Prediction(each.id, values, index, each.label, choices=each.choices) for each in prompts))

    return score


def test_a_comparison_says_so(skewed: Project) -> None:
    """In --json as cautions and notes, with the figures; a run at the majority rate has failed."""
    found = promptkit.compare(
        "films", model=model(window=256), data="data", methods=("zero-shot",), scorer=answer(1), out="run"
    )
    assert (found["chance"], found["majority"]) == (0.5, 0.6)
    assert found["cautions"] == [
        "One answer is given to 95 % or more of the records: zero-shot ('positive', 100.0 %).",
        f"{ALWAYS}; not shown to be better: zero-shot (60.0 %).",
    ]
    assert set(found["cautions"]) <= set(found["notes"])
    assert found["methods"][0]["failed"] == 1
    assert found["methods"][0]["against_majority"]["better"] is False


@pytest.mark.parametrize("command", ["compare films --methods zero-shot", "score films", "study films -k 1 --draws 1"])
def test_it_stands_in_the_first_lines(command: str, skewed: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """Right below the headline, before any figure, and not again among the notes; on the page, too."""
    kept = model(window=400)
    kept.network.save_pretrained("m")
    kept.tokenizer.save_pretrained("m")
    flat = '{% set labels = {"negative": "x", "positive": "' + "warm " * 9 + '"} %}'
    skewed.write("templates/films/plain.jinja", flat + (skewed.root / "templates/films/plain.jinja").read_text())
    cli([*command.split(), "--data", "data", "--model", "m", "--out", "run"], standalone_mode=False)
    out = " ".join(capsys.readouterr().out.split())
    start = out.index("One answer is given to 95 % or more of the records: ")
    assert start < min(out.index(word) for word in ("Accuracy in", "Conditions, accuracy") if word in out)
    assert "('negative', 100.0 %). Always answering 'positive' would be right for 60.0 % of these records; " in out
    assert out.count("Always answering") == 1
    cli(["report", "run"], standalone_mode=False)
    page = (skewed.root / "run/report/report.html").read_text()
    assert page.count("Always answering &#39;positive&#39; would be right for 60.0 % of these records") == 1
    assert page.index("Always answering") < page.index("<main")


def test_rows_of_a_file_have_a_majority(skewed: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """`score FILE` tells its rate where all rows have the same choices; rows without labels have their one answer."""
    kept = model(window=400)
    kept.network.save_pretrained("m")
    kept.tokenizer.save_pretrained("m")
    rows = [
        {"prompt": f"film {number}", "choices": ["x", " warm" * 9], "label": number % 4 // 3} for number in range(12)
    ]
    skewed.write("rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    cli(["score", "rows.jsonl", "--model", "m", "--json"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert found["majority"] == 0.75
    assert found["cautions"][0] == ("One answer is given to 95 % or more of the records: zero-shot ('x', 100.0 %).")
    assert found["cautions"][1].startswith("Always answering 'x' would be right for 75.0 % of these records; not shown")
    for row in rows:
        del row["label"]
    skewed.write("rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    cli(["score", "rows.jsonl", "--model", "m"], standalone_mode=False)
    ran = capsys.readouterr()
    assert "note: One answer is given to 95 % or more of the records: zero-shot ('x', 100.0 %).\n" in ran.err
    assert all(json.loads(line)["predicted"] == 0 for line in ran.out.splitlines())
    different = [{**row, "choices": [*row["choices"], f" word{number}"]} for number, row in enumerate(rows)]
    skewed.write("rows.jsonl", "".join(json.dumps(row) + "\n" for row in different))
    cli(["score", "rows.jsonl", "--model", "m", "--json"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert found["majority"] is None
    assert found["cautions"] == ["One answer is given to 95 % or more of the records: zero-shot (choice 1, 100.0 %)."]


def test_records_with_choices_of_their_own_fail_at_chance(skewed: Project) -> None:
    """Where there is no label to be most frequent, failing goes by guessing, as before."""
    task = TASK.replace('labels = ["negative", "positive"]\n', "").replace("label =", 'choices = "choices"\nlabel =')
    skewed.write("tasks/films.toml", task)
    skewed.write(
        "templates/films/plain.jinja",
        "{% macro input(text, choices) %}{{ text }}:{% endmacro %}{% macro target(label) %} {{ label }}{% endmacro %}",
    )
    rows = [{"sentence": "it was", "choices": ["good", "bad"], "label": number % 2} for number in range(8)]
    skewed.write("data/test.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    found = promptkit.compare(
        "films", model=model(window=256), data="data", methods=("zero-shot",), scorer=answer(1), out="run"
    )
    assert (found["majority"], found["methods"][0]["failed"]) == (None, 1)
    assert found["cautions"] == ["One answer is given to 95 % or more of the records: zero-shot (choice 2, 100.0 %)."]
