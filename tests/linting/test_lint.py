"""The linter: silent on what ships, and one message per planted defect."""

from __future__ import annotations

import re

import pytest

from promptkit.errors import PromptkitError
from promptkit.linting.lint import lint
from tests.conftest import TASK, TEMPLATE, Project

COT = TEMPLATE + "{% macro rationale(rationale) %} {{ rationale }}{% endmacro %}"


def test_shipped_templates_have_no_defects() -> None:
    """Everything that ships is clean, and every pair of template and task was checked."""
    result = lint()
    assert result.defects == ()
    assert result.pairs >= result.templates


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (TEMPLATE.replace("Sentiment:\n{%-", "Sentiment: {%"), r"the input ends with white space ' '"),
        (TEMPLATE.replace("%} {{ label", "%}{{ label"), "target 'negative' does not begin with white space"),
        (TEMPLATE.replace("{{ label }}", "same"), "two labels have the same target ' same'"),
        (
            TEMPLATE + '{% set labels = {"negative": "good", "positive": "good film"} %}',
            "the target ' good' is the beginning of ' good film'",
        ),
        (TEMPLATE.replace("review with", "{text} with"), r"the instruction shows '\{text\}'"),
        (
            TEMPLATE.replace("{{ labels | either }}", "{{ '{{' }} labels }}"),
            r"the instruction shows '\{\{ labels \}\}'",
        ),
        (
            TEMPLATE + '{% set seperator = "\\n" %}',
            r"films/other.jinja:12: nothing uses 'seperator'\. Did you mean 'separator'\?",
        ),
        (
            TEMPLATE.replace("instruction", "instructon"),
            r"other.jinja:2: nothing uses 'instructon'\. Did you mean 'inst",
        ),
        (TEMPLATE.replace("{{ text }}", "some text"), "the input takes 'text' and does not show it"),
        (TEMPLATE.replace("{{ text }}", "{{ text | upper }}"), "the input changes the text of 'text'"),
        (TEMPLATE.replace("{{ text }}", "{{ text | trim }}"), "the input changes the text of 'text'"),
        (TEMPLATE.replace("{# The usual way. #}\n", ""), "the first line is no {# comment #}"),
        (TEMPLATE.replace("{{ text }}", "{{ texts }}"), "films/other.jinja:7: 'texts' is not defined"),
        (TEMPLATE.replace("{{ text }}", "{{ text"), "syntax error"),
        (COT + '{% set stop = ["\\nAnswer:"] %}', "begins the target ' negative'"),
        (COT.replace("%} {{ rationale", "%}{{ rationale"), "the rationale 'The first part is 3. The secon' does not"),
        (TEMPLATE.replace("\n{%- endmacro %}\n\n{% macro input", "\n{% endmacro %}\n\n{% macro input"), "instruction"),
    ],
)
def test_each_planted_defect_is_found(project: Project, source: str, message: str) -> None:
    """A defect is reported with its file and the task it concerns; nothing else is reported."""
    project.write("templates/films/other.jinja", source)
    found = [str(defect) for defect in lint(["templates"]).defects]
    assert found
    assert all("templates/films/other.jinja" in line for line in found)
    assert any(re.search(message, line) for line in found)


def test_broken_task_file_is_a_defect(project: Project) -> None:
    """A task file that does not load is reported like a template."""
    project.write("tasks/films.toml", TASK.replace('label = "label"', ""))
    assert "[fields] has no `label`" in str(lint(["tasks", "templates"]).defects[0])


def test_template_of_an_unknown_family_is_reported(project: Project) -> None:
    """A template that no task is meant for is a defect, since nothing checks it."""
    project.write("templates/orphans/plain.jinja", TEMPLATE)
    assert [str(d) for d in lint(["templates/orphans"]).defects] == [
        "templates/orphans/plain.jinja: no task names the family 'orphans' as its `templates`"
    ]


def test_path_without_anything_to_check_is_an_error(project: Project) -> None:
    """A path that holds neither tasks nor templates is refused."""
    with pytest.raises(PromptkitError, match=r"data: no task \(.toml\) and no template \(.jinja\) is there"):
        lint(["data"])


@pytest.mark.parametrize(
    "shown",
    [
        "{{ text.heading }} {{ text['body'] }}",
        "{% for token in text %}{{ token }} {% endfor %}",
        "{{ text | join(' ') }}",
        "{% for key, value in text | dictsort %}{{ key }}{% endfor %}",
        "{{ text }}{% if text > 2000 %} (new){% endif %}",
        "{{ text }}{{ ' (new)' if text == 2000 }}",
        "{{ text + 1 }}",
        "{{ text * 2 }}",
        "{{ '%.1f' % text }} {{ '{:,}'.format(text) }}",
        "{{ text | int }} {{ text | round(1) }}",
        "{% from '_lists.jinja' import numbered %}{{ numbered(text) }}",
    ],
)
def test_fields_that_are_no_text_are_not_looked_at_as_text(project: Project, shown: str) -> None:
    """A list, a mapping or a number in a field has no text that could be compared; the other parts are checked."""
    project.write("templates/films/other.jinja", TEMPLATE.replace("{{ text }}", shown))
    assert lint(["templates"]).defects == ()
    project.write("templates/films/other.jinja", TEMPLATE.replace("{{ text }}", shown).replace("{{ label }}", "same"))
    assert any("two labels have the same target" in str(defect) for defect in lint(["templates"]).defects)


def test_text_is_looked_at_also_where_it_is_handled_as_text(project: Project) -> None:
    """Text that is changed by slices, methods and filters is still found."""
    for shown in (
        "text[:5]",
        "text[::-1]",
        "text.strip()",
        "text | indent",
        "text + text[1:] if text == '' else text[2:]",
    ):
        project.write("templates/films/other.jinja", TEMPLATE.replace("{{ text }}", f"{{{{ {shown} }}}}"))
        assert "the input changes the text of 'text'" in str(lint(["templates"]).defects)


@pytest.mark.parametrize(
    ("name", "target"),
    [("情感：", "{{ label }}"), ("情感", "{{ label }}"), ("Text:", "的{{ label }}"), ("รีวิว", "{{ label }}")],
)
def test_scripts_without_spaces_need_none(project: Project, name: str, target: str) -> None:
    """Where words are not written apart, a target may follow the input at once."""
    source = TEMPLATE.replace("Sentiment:", name).replace(" {{ label }}", target)
    project.write("templates/films/other.jinja", source)
    assert lint(["templates"]).defects == ()


@pytest.mark.parametrize("text", [r"as \\boxed{text}", '{"tags": {"main": "x"}}', "{other}", "a set {1, 2}"])
def test_braces_that_name_no_field_are_text(project: Project, text: str) -> None:
    """An instruction may show LaTeX and JSON."""
    source = TEMPLATE.replace("the following review", "{% raw %}" + text + "{% endraw %}")
    project.write("templates/films/other.jinja", source)
    assert lint(["templates"]).defects == ()


FREE = """\
{# A free answer. #}
{% set stop = ["\\n\\nText:"] %}
{% set answer = "Answer: (.+)" %}
{% macro input(text) %}Text: {{ text }}{% endmacro %}
{% macro target(label) %}


Answer: {{ label }}{% endmacro %}
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Text:", "Text:", None),
        ('"Answer: (.+)"', '"Answer: ([A-E])"', None),
        ('"Answer: (.+)"', '"Answer: (-?[0-9]{4})"', None),
        (
            '["\\n\\nText:"]',
            '["\\nAnswer"]',
            r"a `stop` of \['\\nAnswer'\] leaves '\\n' of the completion '\\n\\nAnswer: 7'",
        ),
        ('["\\n\\nText:"]', '["\\n"]', r"a `stop` of \['\\n'\] leaves '' of the completion"),
        (
            '"Answer: (.+)"',
            '"#### ([0-9]+)"',
            r"`answer` '#### \(\[0-9\]\+\)' reads nothing from the completion '\\n\\nA",
        ),
    ],
)
def test_a_free_answer_can_be_read(project: Project, old: str, new: str, message: str | None) -> None:
    """What the template writes must hold an answer for its own `answer`, before its own `stop`."""
    assert old in FREE
    project.write("tasks/films.toml", TASK.replace('labels = ["negative", "positive"]\n', ""))
    project.write("templates/films/plain.jinja", FREE.replace(old, new))
    found = [str(defect) for defect in lint(["templates"]).defects]
    assert len(found) == (message is not None)
    assert all(re.search(str(message), line) for line in found)


def test_broken_files_hide_no_defect_of_others(project: Project) -> None:
    """A regular expression that is none is a defect of its task file, and the templates are checked all the same."""
    project.write("tasks/other.toml", TASK.replace('label = "label"', 'label = {column = "label", remove = "(("}'))
    project.write("templates/films/other.jinja", TEMPLATE.replace("{{ label }}", "same"))
    found = [str(defect) for defect in lint(["tasks", "templates"]).defects]
    assert "tasks/other.toml:7: fields.label.remove: '((' is no regular expression" in found[0]
    assert any("two labels have the same target" in line for line in found)
