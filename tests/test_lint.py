"""The linter: silent on what ships, and one message per planted defect."""

from __future__ import annotations

import re

import pytest

from promptkit.errors import PromptkitError
from promptkit.lint import lint
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
        (TEMPLATE.replace("review with", "{review} with"), r"the instruction shows '\{review\}'"),
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
