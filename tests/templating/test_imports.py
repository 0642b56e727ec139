"""What a template takes from other files: by names that are there."""

from __future__ import annotations

import pytest

from promptkit.data.record import Record
from promptkit.data.tasks import load_task
from promptkit.errors import TemplateError
from promptkit.templating.template import load_template
from tests.conftest import Project

RECORD = Record(id="r", fields={"text": "a film"}, label=1)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            '{# A way. #}\n{% from "films/plain.jinja" import instructon, input, target %}',
            r"films/way.jinja:2: films/plain.jinja does not define 'instructon' \(it has: input, "
            r"instruction, target\)\. Did you mean 'instruction'\?",
        ),
        (
            '{% import "films/plain.jinja" as plain %}\n{% set instruction = plain.instructon %}'
            "{% set input = plain.input %}{% set target = plain.target %}",
            r"films/way.jinja:2: films/plain.jinja does not define 'instructon'.*Did you mean 'instruction'\?",
        ),
        (
            '{% from "films/middle.jinja" import input, target %}',  # what another file imported is not passed on
            r"films/way.jinja:1: films/middle.jinja does not define 'target' \(it has: input\)\.",
        ),
        (
            '{% macro input(text) %}{% from "films/plain.jinja" import inptu %}{{ text }}{% endmacro %}',
            "does not define 'inptu'",
        ),
    ],
)
def test_a_misspelt_import_is_an_error(project: Project, source: str, message: str) -> None:
    """A name that the other file does not define is never an absent part: file, line and the nearest name are told."""
    middle = '{% from "films/plain.jinja" import target %}{% macro input(text) %}{{ text }}{% endmacro %}'
    project.write("templates/films/middle.jinja", middle)
    project.write("templates/films/way.jinja", source)
    with pytest.raises(TemplateError, match=message):
        load_template("films/way")


def test_every_way_to_define_a_name_can_be_imported(project: Project) -> None:
    """Macros, settings, blocks and pairs are there for others."""
    project.write(
        "templates/films/parts.jinja",
        '{% import "films/plain.jinja" as plain %}{% set a, b = "A", "B" %}{% set c %}C{% endset %}'
        "{% set target = plain.target %}"
        "{% macro input(text) %}{{ text }}{% endmacro %}",
    )
    project.write(
        "templates/films/way.jinja",
        '{% from "films/parts.jinja" import a, b, c, target, input as other %}'
        "{% macro input(text) %}{{ a }}{{ b }}{{ c }}{{ other(text) }}{% endmacro %}",
    )
    bound = load_template("films/way").bind(load_task("films"))
    assert bound.input(RECORD) == "ABCa film"
    assert bound.target(RECORD) == " positive"
