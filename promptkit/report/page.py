"""Write a run's figures, tables and prompts as one HTML page that needs nothing beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from promptkit.report.canvas import Plot
from promptkit.report.numbers import Numbers, ReportItem, say_answers
from promptkit.report.rebuild import ShownPrompt
from promptkit.report.run_source import RunSource
from promptkit.report.terminal import PICTURES
from promptkit.report.units import cautions, count_of, other_notes, percent, percent_range, say_cells

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

#: Records that are shown as those that flip most, and rows of a table that stand on the page at most.
FLIPPING, MOST_ROWS = 15, 2_000
#: Test records' ids, and which of that id they are, into their texts.
Texts = Mapping[tuple[str, int], str]
_ROLES = ("system", "user", "assistant")


def render_page(
    source: RunSource,
    drawings: Sequence[tuple[Plot, str]],
    tables: Mapping[str, Numbers],
    items: Sequence[ReportItem],
    prompts: Sequence[ShownPrompt] | str,
    texts: Texts | str,
) -> bytes:
    """Return the page as HTML in UTF-8.

    `drawings` are plots and their SVG elements. `prompts` and `texts` are what could be rebuilt, or why not. All text
    is escaped, and the page forbids scripts and anything from elsewhere.
    """
    from markupsafe import Markup

    result = source.result
    flipping = [item for item in items if 0 < item.right < 1][:FLIPPING]
    shown = [] if isinstance(prompts, str) else prompts
    page = _template().render(
        title=f"{result['task']}: {'a study' if source.kind == 'study' else 'methods compared'}",
        headlines=_headlines(source),
        cautions=cautions(result),
        verdict=result["verdict"],
        drawings=[(plot, Markup(drawing)) for plot, drawing in drawings],
        tables=tables,
        sections=_sections(source, tables),
        prompts=shown,
        no_prompts=prompts,
        kinds=list(dict.fromkeys(kind for each in shown for kind, _ in each.pieces)),
        roles=_ROLES,
        flipping=flipping,
        texts=None if isinstance(texts, str) else texts,
        no_texts=texts,
        notes=other_notes(result),
        made=_made(source),
        most_rows=MOST_ROWS,
        percent=percent,
        percent_range=percent_range,
        say_answers=say_answers,
        count_of=count_of,
        marked=mark_whitespace,
    )
    return page.encode("utf-8", "replace")


def _sections(source: RunSource, tables: Mapping[str, Numbers]) -> list[tuple[str, str, list[Numbers]]]:
    """Return the tables that stand before the figures, as (id, title, tables)."""
    title = "In the paper's form" if source.result["preset"]["reference"] else "Tables"
    forms = [numbers for name, numbers in tables.items() if name.startswith("form-")]
    tests = [tables[name] for name in ("by-test",) if name in tables]
    return [each for each in (("forms", title, forms), ("by-test", "By test", tests)) if each[2]]


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(resources.files("promptkit.report").joinpath("page.html.jinja").read_text("utf-8"))


def _headlines(source: RunSource) -> list[str]:
    result = source.result
    first = [*result["models"], count_of(result["records"]["test"], "test record")]
    if result.get("labels"):
        first.append(f"{len(result['labels'])} labels")
    if result.get("chance") is not None:
        first.append(f"guessing {percent(result['chance'])} %")
    if result.get("majority") is not None:
        first.append(f"always the most frequent label {percent(result['majority'])} %")
    cells = say_cells(result) if source.kind == "study" else count_of(len(result["cells"]), "cell")
    preset = result["preset"]
    return [" · ".join(first), cells, *(preset[key] for key in ("reference", "about") if preset.get(key))]


def _made(source: RunSource) -> list[tuple[str, str]]:
    """Return what was run as (name, value): the settings and hashes of run.json, and the versions."""
    settings = [
        (name, value if isinstance(value, str) else json.dumps(value)) for name, value in source.settings.items()
    ]
    return [*settings, *((f"version of {name}", version) for name, version in source.versions.items())]


def mark_whitespace(text: str) -> Markup:
    """Return text as HTML in which every space, tab and line end can be seen, and control characters as pictures.

    The marks are drawn by the page's style, so that what is copied or read aloud is the text itself.
    """
    from markupsafe import Markup, escape

    marks = {
        " ": '<span class="w space"> </span>',
        "\n": '<span class="w line"></span>\n',
        "\t": '<span class="w tab">\t</span>',
    }
    parts = []
    for part in re.split(r"([ \n\t]|[^\S \n\t]|[\x00-\x1f\x7f-\x9f])", text):
        if part in marks:
            parts.append(marks[part])
        elif len(part) == 1 and (not part.isprintable() or part.isspace()):
            picture = part.translate(PICTURES)
            parts.append(
                f'<span class="control" title="U+{ord(part):04X}">{picture if picture != part else "␣"}</span>'
            )
        else:
            parts.append(str(escape(part)))
    return Markup("".join(parts))
