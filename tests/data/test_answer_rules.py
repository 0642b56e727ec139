"""Numbers read from what a model wrote: right, or not at all."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from promptkit.data.answer_rules import RULES, as_text, parse_number, read_rule
from promptkit.data.tasks import load_task
from promptkit.errors import TemplateError
from promptkit.scoring import read_answer, same_answer
from promptkit.templating.template import load_template
from tests.conftest import TEMPLATE, Project

STATED = [
    ("The answer is 72, in total.", "72"),
    ("The answer is 72.", "72"),
    ("The answer is $1,234.50.", "1234.5"),
    ("The answer is 1,234", "1234"),
    ("The answer is -5.", "-5"),
    ("The answer is -$5.", "-5"),
    ("The answer is $-5.", "-5"),
    ("The answer is −5.", "-5"),
    ("The answer is −$5.", "-5"),
    ("The answer is **72**.", "72"),
    ("The answer is \\boxed{72}.", "72"),
    ("The answer is $\\boxed{72}$", "72"),
    ("The answer is €72.", "72"),
    ("The answer is 72%.", "72"),
    ("The answer is 0.5.", "0.5"),
    ("The answer is .5", "0.5"),
    ("The answer is 3/4.", "0.75"),
    ("The answer is 1/2 of it", "0.5"),
    ("The answer is 1e3.", "1000"),
    ("The answer is 10^3", "1000"),
    ("The answer is 2.50 dollars", "2.5"),
    ("The answer is seventy-two.", None),
    ("The answer is 12 apples and 5 pears", None),
    ("The answer is: 72", "72"),
    ("The answer is  72", "72"),
    ("The answer is\n72", "72"),
    ("THE ANSWER IS 72", "72"),
    ("So the answer is x = 72.", "72"),
    ("The answer is 10,00", None),
    ("The answer is 1 000.", "1000"),
    ("The answer is 1.000,50", None),
    ("The answer is not 5. The answer is 7.", "7"),
    ("First the answer is 5, I check: the answer is 7.", "7"),
    ("The answer is 5:30", None),
    ("The answer is 100,000,000", "100000000"),
    ("The answer is 1234,567", None),
    ("The answer is 150 + 10 = 160.", "160"),
    ("\\boxed{\\frac{3}{4}}", "0.75"),
    ("\\boxed{-\\frac{3}{4}}", "-0.75"),
    ("The answer is not 5.", None),
    ("I don't think the answer is 5.", None),
    ("The answer is 7, not 5.", "7"),
    ("#### 72", "72"),
    ("#### -1,000", "-1000"),
    ("#### 5.00", "5"),
    ("The answer is 72 (8 * 9).", "72"),
    ("The answer is 7, because 3 + 4 = 7.", "7"),
    ("The answer is 8, because 3 + 4 = 7.", None),
    ("The answer is 5 (five).", "5"),
    ("The final answer is $18.", "18"),
    ("Answer: 18", "18"),
    ("Final answer: **18 dollars**", "18"),
    ("the answer to the question is 18", "18"),
    ("The answer is $\\$18$.", "18"),
    ("The answer is **$18**.", "18"),
    ("The answer is 18 dollars per day.", "18"),
    ("The answer is 0.", "0"),
    ("The answer is -0", "0"),
    ("The answer is 4 1/2 hours", "4.5"),
    ("The answer is 5 hours and 30 minutes", None),
    ("The answer is 1.5e3", "1500"),
    ("The answer is 5 / 10 = 0.5", "0.5"),
    ("The answer is 7\n\nQuestion: Tom has 5", "7"),
]
BARE = [
    (" -$5", "-5"),
    (" .5", "0.5"),
    (" 3/4", "0.75"),
    (" 12 - 5 = 7", "7"),
    (" $1,234.50", "1234.5"),
    (" 1,23,456", "123456"),
    (" It costs 5 dollars for 2, so 10", None),
    (" −5", "-5"),
    (" ５", "5"),
    ("150 + 10 = 160", "160"),
    ("150 + 10 = 160.", "160"),
    ("$150 + $10 = $160", "160"),
    ("1 1/2", "1.5"),
    ("1½", "1.5"),
    ("½", "0.5"),
    ("2 and 3/4", "2.75"),
    ("1\u2009000", "1000"),
    ("1\u202f234\u202f567", "1234567"),
    ("1\xa0000", "1000"),
    ("5 kg", "5"),
    ("5kg", "5"),
    ("12 m²", "12"),
    ("10³", "1000"),
    ("5k", None),
    ("3 million", "3000000"),
    ("2 dozen", "24"),
    ("5-7", None),
    ("5 - 7", None),
    ("5 to 7", None),
    ("minus 5", "-5"),
    ("negative $5", "-5"),
    ("10 minus 5", None),
    ("__5__", "5"),
    ("*5*", "5"),
    ("`5`", "5"),
    ("$5$", "5"),
    ("$-5$", "-5"),
    ("\\(5\\)", "5"),
    ("<b>5</b>", "5"),
    ("2**3", "8"),
    ("2^10", "1024"),
    ("1.5 x 10^3", "1500"),
    ("1.5\\times10^{3}", "1500"),
    ("5!", "5"),
    ("5...", "5"),
    ("12.5.3", None),
    ("2024-01-05", None),
    ("1/2/3", None),
    ("B12", None),
    ("x5", None),
    ("2x3", None),
    ("±5", None),
    ("<5", None),
    ("(5)", "5"),
    ("5 €", "5"),
    ("5€", "5"),
    ("€5", "5"),
    ("US$5", "5"),
    ("USD 5", "5"),
    ("₹1,00,000", "100000"),
    ("£-3.50", "-3.5"),
    ("+5", "5"),
    ("--5", None),
    ("1,2", None),
    ("1, 2", None),
    ("5 and a half", None),
    ("1e999999", None),
    ("10^99999", None),
    ("3/0", None),
    ("", None),
    ("no", None),
    ("-3/4", "-0.75"),
    ("1/3", "1/3"),
    ("33.3%", "33.3"),
    ("1,000,000.25", "1000000.25"),
    ("5th", "5"),
    ("x = 72", "72"),
    ("= 72", "72"),
    ("72 = 8 * 9", None),
    ("7.", "7"),
    ("7,", "7"),
    ("-.5", "-0.5"),
    ("$.50", "0.5"),
    ("-$.50", "-0.5"),
    ("$ 5", "5"),
    ("- $5", None),
    ("٣", None),
    ("1_000", None),
    ("5/10 = 1/2", "0.5"),
    ("10 000 000", "10000000"),
    ("20%", "20"),
    ("3.14159", "3.14159"),
    ("007", "7"),
]


@pytest.mark.parametrize(("text", "number"), [*STATED, *BARE])
def test_a_number_is_read_right_or_not_at_all(text: str, number: str | None) -> None:
    """Signs, currencies, groups, fractions, powers, equations and markup do not count; what is ambiguous is unread."""
    assert read_rule(text, "number") == number


@pytest.mark.parametrize(("text", "number"), STATED)
def test_a_final_number_is_read_behind_its_phrase(text: str, number: str | None) -> None:
    """What follows the last `answer is`, `####` or `boxed` is read in the same way."""
    assert read_rule(text, "final-number") == number


@pytest.mark.parametrize(("text", "_"), BARE)
def test_without_its_phrase_a_final_number_is_unread(text: str, _: str | None) -> None:
    """A number in the working is no answer."""
    assert read_rule(text, "final-number") is None


def test_the_last_number_is_read_where_a_template_says_so() -> None:
    """Where the phrase is missing, the last number is the answer only if it is asked for."""
    text = "Tom has 5 and Ann 7, so 12 in all."
    assert [read_rule(text, rule) for rule in RULES] == [None, None, "12", "12"]
    assert read_rule("It is 5, or 10,00", "final-number else last-number") is None
    assert read_rule("Not 3. The answer is 8. I used 2 steps.", "final-number else last-number") == "8"


@pytest.mark.parametrize("name", ["plain", "terse", "wordy", "cot"])
def test_every_shipped_template_reads_its_own_answers(name: str) -> None:
    """What the shipped templates teach a model to write is read by them."""
    bound = load_template(f"word-problems/{name}").bind(load_task("word-problems"))
    assert bound.template.answer is not None
    for answer in ("7", "-5", "1,000", "0.75", "3/4", "$2.50"):
        text = bound.template.parts["target"].call(answer)
        read = read_answer(text, bound.template.answer)
        assert same_answer(read, answer), text


@given(st.fractions(min_value=-(10**9), max_value=10**9, max_denominator=1000))
def test_a_number_written_is_the_number_read(number: Fraction) -> None:
    """Reading undoes writing."""
    assert parse_number(as_text(number)) == number
    assert read_rule(f"The answer is {as_text(number)}.", "final-number") == as_text(number)


@given(st.text("0123456789 .,-+/=$%^*()eEx:\\{}#\nabn", max_size=40))
@example("1E400")
def test_any_text_is_read_without_an_error(text: str) -> None:
    """Whatever a model writes, a rule gives a number or nothing."""
    for rule in RULES:
        read = read_rule("The answer is " + text, rule)
        assert read is None or parse_number(read) is not None


@pytest.mark.parametrize("piece", [" 1", "5 = ", "$-", "<a ", "\\frac{", "answer ", "**", "1" * 99, "not "])
def test_long_texts_take_no_time(piece: str) -> None:
    """A model that repeats itself does not stall the reading."""
    started = time.process_time()
    read_rule(piece * (1_000_000 // len(piece)), "number else last-number")
    assert time.process_time() - started < 5


def test_a_misspelt_rule_names_the_rules(project: Project) -> None:
    """A name that is no rule is a pattern without a group."""
    project.write("templates/films/other.jinja", '{% set answer = "nubmer" %}\n' + TEMPLATE)
    with pytest.raises(TemplateError, match=r"other.jinja: `answer`: 'nubmer' has no group; .* name a rule: number,"):
        load_template("films/other")
