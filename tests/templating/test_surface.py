"""Templates in other forms: which bytes change, that data never do, and that prompts and pairs agree."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptkit.data.record import Record
from promptkit.data.tasks import find_tasks, load_task
from promptkit.errors import TemplateError
from promptkit.prompts.pair import build_pair
from promptkit.prompts.prompt import build_prompt
from promptkit.templating.formatting import Format, parse_format
from promptkit.templating.surface import SAMPLED, apply_format, sample_formats
from promptkit.templating.template import BoundTemplate, Template, find_templates, load_template
from tests.conftest import TEMPLATE, Project

TASK_OF = {load_task(name).templates: load_task(name) for name in find_tasks()} | {"sentiment": load_task("reviews")}
#: Templates with fields, of every kind that ships.
FIELDS = [
    *("sentiment/plain", "sentiment/cot", "sentiment/letters", "sentiment/options", "sentiment/wordy"),
    *("multiple-choice/plain", "multiple-choice/numbered", "multiple-choice/wordy", "multiple-choice/cot"),
    *("entailment/plain", "question-type/form", "yes-no/question-first", "yes-no/cot", "topic/hashtag"),
    *("word-problems/plain", "word-problems/cot"),
]


def bind(name: str, form: str) -> BoundTemplate:
    """A shipped template in another form, bound to a task of its family."""
    return apply_format(load_template(name), parse_format(form)).bind(TASK_OF[name.split("/")[0]])


def review(text: str = "a: b\nText: c", label: int | None = 1, **settings: object) -> Record:
    """A record whose text looks like fields."""
    return Record("r", {"text": text}, label, **settings)  # type: ignore[arg-type]


def test_every_axis_changes_what_it_names_and_nothing_else() -> None:
    """Separator, casing and spacing change the literal text; a target begins as the separator ends."""
    bound = bind("sentiment/plain", "sep='\\n\\t',case=upper,space=' || ',between='\\n--\\n'")
    prompt = build_prompt(bound, review(), [review("x: y", 0)])
    assert prompt.text == (
        "Say whether the sentiment of each text is negative or positive.\n--\n"
        "TEXT\n\tx: y || SENTIMENT\n\tnegative\n--\nTEXT\n\ta: b\nText: c || SENTIMENT"
    )
    assert prompt.choices == ("\n\tnegative", "\n\tpositive")


@pytest.mark.parametrize(
    ("name", "form", "text"),
    [
        ("multiple-choice/plain", "marker='(x)'", "Question: q\n(A) one\n(B) two\nAnswer:| B"),
        ("multiple-choice/numbered", "marker='[x]'", "q\n[1] one\n[2] two\nCorrect:| [2] two"),
        ("multiple-choice/text", "marker='*'", "Question: q\n* one\n* two\nAnswer:| two"),
        ("multiple-choice/text", "marker='(x)',case=lower", "question: q\n- one\n- two\nanswer:| two"),
    ],
)
def test_lists_get_other_markers(name: str, form: str, text: str) -> None:
    """Bullets take bullets, letters and numbers take signs around them, in the answer that repeats them too."""
    bound = bind(name, form)
    record = Record("r", {"question": "q"}, 1, choices=("one", "two"))
    assert f"{bound.input(record)}|{bound.target(record)}" == text


def test_values_in_a_name_keep_their_case() -> None:
    """What stands in parentheses inside a name is a value, and is left alone."""
    bound = bind("yes-no/question-first", "case=upper")
    text = bound.input(Record("r", {"passage": "p", "question": "q"}, 0))
    assert text == "QUESTION: q?\nLOOK IT UP HERE: p\nANSWER (yes or no):"


def test_stop_texts_follow_the_form() -> None:
    """What ends the model's writing has the form of what it stands for: the answer's field, a next demonstration."""
    bound = bind("sentiment/cot", "sep=' - ',case=upper,space=' | ',between='\\n###\\n'")
    record = review(rationale="Because.")
    assert bound.template.stop == (" | SENTIMENT -", "\n###\nREVIEW -")
    pair = build_pair(bound, record, [record])
    assert pair.completion == " Because. | SENTIMENT - positive"
    assert all(stop in f"{pair.prompt}{pair.completion}" for stop in bound.template.stop)


data = st.text(max_size=30)
forms = st.builds(
    Format,
    *(st.sampled_from(SAMPLED[axis]) for axis in ("sep", "case", "space", "between")),
    marker=st.sampled_from([None, "*", "(x)", "x)"]),
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(FIELDS), forms, data, data)
def test_data_survive_and_prompts_and_pairs_agree(name: str, form: Format, text: str, other: str) -> None:
    """In any form of any template each field's bytes are in the prompt, and the pair is the prompt and a choice."""
    template = load_template(name)
    if template.answer is not None:  # a line break would end the answer before it begins
        form = replace(form, separator=": ")
    bound = apply_format(template, form).bind(TASK_OF[name.split("/")[0]])
    choices = (f"1 {other}", f"2 {other}") if bound.task.has_choices else None
    label = "7" if bound.task.is_free_text else 1
    fields = {field: f"{text}{number}" for number, field in enumerate(bound.task.input_fields)}
    record = Record("r", fields, label, rationale=other, choices=choices)
    prompt, pair = build_prompt(bound, record, [record]), build_pair(bound, record, [record])
    assert pair.prompt == prompt.text
    answer = prompt.choices[1] if prompt.choices else bound.target(record)
    assert pair.completion == (bound.rationale(record) if template.is_cot else "") + answer
    assert prompt.text.endswith(bound.input(record))
    assert prompt.text.count(pair.completion) >= 1
    for field in bound.template.parts["input"].arguments:
        assert field not in fields or str(fields[field]) in bound.input(record)
    assert answer[:1].isspace()
    plain = template.bind(bound.task)
    assert bound.input(record)[-1:].isspace() == plain.input(record)[-1:].isspace()


@pytest.mark.parametrize("name", sorted(find_templates()))
def test_own_form_is_the_template_itself(name: str) -> None:
    """No change, or a change into what stands there already, gives the very template back."""
    template = load_template(name)
    assert apply_format(template, Format()) is template
    assert apply_format(template, Format(between=template.separator)) is template


def test_a_form_is_a_function_of_the_text(project: Project) -> None:
    """Hashes differ with the text and only with it; what was loaded counts, not what the file says by now."""
    template = load_template("films/plain")
    upper = apply_format(template, parse_format("case=upper"))
    assert apply_format(template, parse_format("sep=': ',case=title")) is template
    assert len({template.hash, upper.hash, apply_format(template, parse_format("case=lower")).hash}) == 3
    assert apply_format(template, parse_format("case=upper,sep=': '")).hash == upper.hash
    project.write("templates/films/plain.jinja", "nothing")
    again = apply_format(template, parse_format("case=upper"))
    assert again.hash == upper.hash
    assert again.bind(load_task("films")).input(review("x")) == "TEXT: x\nSENTIMENT:"
    assert again.name == template.name


def load(project: Project, source: str) -> Template:
    """Write a template and load it."""
    project.write("templates/films/other.jinja", source)
    return load_template("films/other")


def test_branches_and_line_ends_of_the_file_are_followed(project: Project) -> None:
    """A field is found in every branch of a condition and behind a CRLF, which stays where spacing is not varied."""
    source = TEMPLATE.replace("Text: ", "{% if text %}Text: {% else %}No text: {% endif %}").replace("\n", "\r\n")
    bound = apply_format(load(project, source), parse_format("case=upper,sep=' = '")).bind(load_task("films"))
    assert bound.input(review("x")) == "TEXT = x\r\nSENTIMENT ="
    assert bound.input(review("")) == "NO TEXT = \r\nSENTIMENT ="
    with pytest.raises(TemplateError, match="the name 'Text' ends inside a condition and the white space"):
        apply_format(load(project, source.replace(": {%", ":{%")), parse_format("sep=' = '"))


def test_templates_without_fields_are_refused() -> None:
    """A form of fields needs fields, and one of lists needs a list; the message names file and line."""
    with pytest.raises(TemplateError, match=r"terse.jinja:4: the input has no field, a line that begins with a name"):
        bind("sentiment/terse", "case=upper")
    with pytest.raises(
        TemplateError, match=r"plain.jinja:6: the template shows no list with bullets to mark with '\*'"
    ):
        bind("sentiment/plain", "marker='*'")
    with pytest.raises(TemplateError, match="no field"):
        sample_formats(2, load_template("sentiment/terse"))


def test_a_form_that_would_lose_the_answer_is_refused(project: Project) -> None:
    """Neither may writing stop before the answer, nor the answer go unread; nor a target begin with a value."""
    with pytest.raises(TemplateError, match=r"holds '\\n', before which writing stops"):
        bind("word-problems/plain", "sep='\\n '")
    source = '{% set answer = "Sum: ([0-9]+)" %}{% macro input(question) %}{{ question }}{% endmacro %}'
    source += "{% macro target(label) %}\n\nSum: {{ label }}{% endmacro %}"
    with pytest.raises(TemplateError, match=r"`answer` 'Sum: .*' no longer reads '\\nSUM: 7'"):
        apply_format(load(project, source), parse_format("case=upper"))
    with pytest.raises(TemplateError, match="target begins with a value; it must begin with white space"):
        apply_format(load(project, TEMPLATE.replace("%} {{ label", "%}{{ label")), parse_format("sep=' - '"))


def test_sampled_formats_are_nested_and_tell_apart() -> None:
    """The first is the template's own, fewer are the first of more, and no two give the same text."""
    template = load_template("multiple-choice/plain")
    ten = sample_formats(10, template, seed=3)
    assert ten[0] == Format()
    assert sample_formats(4, template, seed=3) == ten[:4]
    assert sample_formats(10, template, seed=4)[1:] != ten[1:]
    assert len({apply_format(template, form).hash for form in ten}) == 10
    assert any(form.marker for form in ten)
    assert not any(form.spacing for form in ten), "the template has no break to vary"
    assert not any(form.between for form in ten), "asked for by name only"
    with pytest.raises(TemplateError, match=r"1000 formats were asked for; template .* has \d+ over sep"):
        sample_formats(1000, template)
    with pytest.raises(TemplateError, match=r"unknown axis 'spce' of a format.*Did you mean 'space'\?"):
        sample_formats(2, axes=["spce"])
    assert len(set(sample_formats(50))) == 50


def test_sampled_values_are_ones_a_format_may_have() -> None:
    """Every value that is drawn from passes the checks of Format by itself."""
    for axis, texts in SAMPLED.items():
        for text in texts:
            if text is not None:
                assert parse_format(f"{axis}={text!r}").name.startswith(axis)
