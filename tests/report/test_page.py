"""The report's page: it holds what the run holds, needs nothing beside it, and no text of a run is its code."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from promptkit.building.build import iterate_prompts
from promptkit.cli import cli
from promptkit.errors import DataError, RunError
from promptkit.experiments.compare import compare
from promptkit.experiments.study import study
from promptkit.models import Model
from promptkit.report.numbers import gather_items
from promptkit.report.page import mark_whitespace
from promptkit.report.plots import make_plots
from promptkit.report.rebuild import reload_records, show_extremes
from promptkit.report.run_source import load_source
from promptkit.report.write_report import write_report
from tests.conftest import TASK, TEMPLATE, Project
from tests.experiments.test_compare import small
from tests.helpers.study_runs import write_study
from tests.helpers.training_fakes import model as random_model
from tests.helpers.training_fakes import saved

__all__ = ["small"]  # a fixture

VOID = {"meta", "br", "img", "input", "hr", "link", "use", "path"}
NASTY = '</pre></svg><script>alert(1)</script> "&amp; $x$ {{ 7 * 7 }}'
LABELS = ["<script>alert(2)</script>", 'good & "fine"']
NAMED = "<img src=x onerror=alert(3)>"


class Page(HTMLParser):
    """A page taken apart: its elements with their attributes, and its text by the element around it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[tuple[str, ...], str]] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open, "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element of an SVG that ends where it begins."""
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """Leave an element."""
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note a text."""
        self.texts.append((tuple(self.open), data))

    def texts_in(self, tag: str) -> list[str]:
        """Return the whole text of each outermost element of this name."""
        found: list[str] = []
        inside = False
        for around, text in self.texts:
            if tag in around:
                found = [*found[:-1], found[-1] + text] if inside else [*found, text]
            inside = tag in around
        return found


def read_page(path: str | Path) -> Page:
    """Return the page of a report."""
    return Page(Path(path).read_text())


def nasty_study(project: Project) -> dict[str, Any]:
    """Run a study whose task, labels, template and records all hold markup."""
    project.write("tasks/films.toml", TASK.replace('["negative", "positive"]', json.dumps(LABELS)))
    project.write(f"templates/films/{NAMED}.jinja", TEMPLATE)
    for name in ("train", "test"):
        rows = [{"sentence": f"{name} {number}\t{NASTY}", "label": number % 2} for number in range(6)]
        project.write(f"data/{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    given: dict[str, Any] = {"templates": ("plain", NAMED), "shots": (1,), "draws": 2, "orders": ("given",)}
    model = saved(random_model(window=512), project.root / "model")
    return study("films", model=model.name, data="data", out="run", limit=3, **given)


def test_no_text_of_a_run_becomes_code(project: Project) -> None:
    """Markup in labels, names of templates and records is text; nothing runs and nothing is fetched."""
    result = nasty_study(project)
    _, shown = write_report("run", data="data")
    page = read_page(shown["report"]["page"])
    assert shown["report"]["left_out"] == {}
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "iframe", "object", "img", "link", "form", "foreignobject", "base"}
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("href", "src", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#"), attributes
    text = Path(shown["report"]["page"]).read_text()
    assert not re.search(r"url\((?!#)", text)
    assert "default-src 'none'" in text
    words = "".join(text for _, text in page.texts)
    assert all(part in words for part in (*LABELS, NASTY, NAMED))
    assert len(result["cells"]) == 4
    for figure in Path("run/report/figures").glob("*.svg"):
        assert "<script" not in figure.read_text()
        assert "<img" not in figure.read_text()


def test_page_can_be_used_without_seeing_it(tmp_path: Path) -> None:
    """Drawings have a name and a description, tables headers, ids are unique and every reference has its target."""
    write_study(tmp_path / "run")
    _, shown = write_report(tmp_path / "run")
    page = read_page(shown["report"]["page"])
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    drawings = [attributes for tag, attributes in page.elements if tag == "svg"]
    assert len(drawings) == 6
    for attributes in drawings:
        assert attributes["role"] == "img"
        assert {attributes["aria-labelledby"], attributes["aria-describedby"]} <= set(ids)
    for _, attributes in page.elements:
        for name in ("href", "xlink:href"):
            target = attributes.get(name) or "#main"
            assert target.startswith("data:image/png;base64,") or target.removeprefix("#") in ids
    assert all(attributes.get("scope") for tag, attributes in page.elements if tag == "th")
    assert dict(page.elements)["html"] == {"lang": "en"}
    assert len(page.texts_in("summary")) >= len(drawings)
    assert "Nothing is shown." in "".join(text for _, text in page.texts)
    words = page.texts_in("svg")
    assert "few-shot k=2" in words[0]  # the drawings' words are text


def test_colours_are_the_theme_s(tmp_path: Path) -> None:
    """What is not data has no colour of its own on the page, which has a light and a dark theme."""
    write_study(tmp_path / "run")
    _, shown = write_report(tmp_path / "run")
    text = Path(shown["report"]["page"]).read_text()
    assert "prefers-color-scheme: dark" in text
    drawn = "".join(re.findall(r"<svg .*?</svg>", text, re.S))
    assert "var(--ink)" in drawn
    assert "var(--series-0)" in drawn
    for colour in ("#1b1f24", "#5b6470", "#d9dee4", "#0072b2"):
        assert colour not in drawn
    for name in set(re.findall(r"var\(--([\w-]+)\)", text)):
        assert f"--{name}:" in text


def test_best_and_worst_prompt_are_the_bytes_that_were_asked(project: Project) -> None:
    """The prompts on the page are those of the best and of the worst cell for the first record, byte for byte."""
    result = nasty_study(project)
    _, shown = write_report("run", data="data")
    found = read_page(shown["report"]["page"]).texts_in("pre")
    best = max(result["cells"], key=lambda cell: cell["accuracy"])
    worst = min(result["cells"], key=lambda cell: cell["accuracy"])
    for text, cell in zip(found, [best] if best["accuracy"] == worst["accuracy"] else [best, worst], strict=True):
        draw = {"k": cell["k"], "order": cell["draw"]["order"], "seed": 0, "limit": 3, "train_limit": 512}
        prompts = [*iterate_prompts("films", cell["template"], data="data", **draw)]
        other = [*iterate_prompts("films", cell["template"], data="data", **{**draw, "seed": cell["draw"]["seed"]})]
        by_id = {prompt.id: prompt.text for prompt in other}
        assert text.rstrip("\n") == by_id[prompts[0].id]


def test_a_prompt_of_a_budget_has_its_record_s_label_and_answer(small: Model) -> None:
    """Where a budget did not ask the first test record, the first that it asked is shown, with what belongs to it."""
    grid: dict[str, Any] = {"shots": (1, 2), "draws": 2, "orders": ("given",), "seed": 1, "budget": 10}
    study("films", model=small.name, data="data", out="run", **grid)
    source = load_source(Path("run"))
    task, splits = reload_records(source, "data")
    assert all(splits.test[0].id not in each.ids for each in source.answers)
    for shown in show_extremes(source, task, splits):
        assert shown.record in {each.ids[0] for each in source.answers}
        record = next(record for record in splits.test if record.id == shown.record)
        assert shown.label == (task.labels or ())[int(record.label or 0)]
        assert "".join(text for _, text in shown.pieces).count(record.fields["text"]) == 1


@pytest.mark.parametrize(
    ("change", "data", "reason"),
    [
        (None, None, "give --data with the run's records; a report reads none from a place that only the run names"),
        ("templates/films/plain.jinja", "data", "the template 'films/plain' has changed since the run"),
        ("tasks/films.toml", "data", "the task file of 'films' has changed since the run"),
        ("data/test.jsonl", "data", "the test records are not those of the run"),
        ("data/train.jsonl", "data", "the pool records are not those of the run"),
    ],
)
def test_what_cannot_be_rebuilt_is_left_out(
    small: Model, project: Project, monkeypatch: pytest.MonkeyPatch, change: str | None, data: str | None, reason: str
) -> None:
    """Where a file is not what it was, the page says so in the prompt's place."""
    monkeypatch.setattr("promptkit.report.write_report.make_plots", lambda source, items: [])
    study("films", model=small.name, data="data", out="run", limit=3, shots=(1,), draws=2, orders=("given",))
    if change:
        path = project.root / change
        path.write_text(
            path.read_text().replace("Sentiment", "Feeling").replace("Movie", "Film").replace("grey", "red")
        )
    _, shown = write_report("run", data=data)
    assert reason in shown["report"]["left_out"]["prompts"]
    words = "".join(text for _, text in read_page(shown["report"]["page"]).texts)
    assert f"Left out: {reason}" in words


def test_whitespace_is_marked_and_stays() -> None:
    """Spaces, tabs and line ends have marks that are not text; control characters are pictures; the rest is escaped."""
    marked = str(mark_whitespace("a b\t<i>\r\n\x00\u00a0"))
    assert "<i>" not in marked
    assert re.sub(r"<[^>]*>", "", marked) == "a b\t&lt;i&gt;␍\n␀␣"
    assert marked.count("w space") == marked.count("w tab") == marked.count("w line") == 1
    assert 'title="U+00A0"' in marked


def test_a_comparison_has_a_report_too(small: Model) -> None:
    """From compare.json and the cells: every method, the break-even, the records that flip."""
    given: dict[str, Any] = {"limit": 4, "draws": 2, "seeds": 1, "epochs": 1, "shots": (1, 2), "data": "data"}
    result = compare("films", model=small.name, out="run", train_sizes=(2, 4), **given)
    Path("run/compare.json").write_text(json.dumps(result))
    kind, shown = write_report("run", data="data")
    assert kind == "compare"
    names = [Path(path).name for path in shown["report"]["figures"]]
    assert {"runs.svg", "runs.png", "runs.pdf", "cost.svg", "break-even.svg", "records.svg"} <= set(names)
    assert "few-shot" in read_page(shown["report"]["page"]).texts_in("svg")[0]
    assert {"curves.svg", "shots.svg"} <= set(names)
    tables = {
        Path(path).name: list(csv.DictReader(Path(path).read_text().splitlines()))
        for path in shown["report"]["numbers"]
        if "csv" in path
    }
    points = [(line["name"], point["rows"]) for line in result["curves"]["lines"] for point in line["points"]]
    assert [(row["line"], int(row["rows"])) for row in tables["curves.csv"]] == points
    contests = [size["difference"] for each in result["curves"]["crossings"] for size in each["sizes"]]
    assert [float(row["difference"]) for row in tables["contests.csv"]] == contests
    source = load_source(Path("run"))
    lines = next(plot for plot in make_plots(source, gather_items(source)) if plot.name == "shots").description
    assert all(name in lines for name in ("few-shot: k=1", "few-shot bm25 of 2: k=1", "few-shot bm25 of 4: k=1"))
    assert shown["report"]["left_out"] == {}


def test_verb_prints_the_tables_and_where_the_page_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the terminal the study's tables again and the page; with --json one object, the study's own and `report`."""
    monkeypatch.setattr("promptkit.report.write_report.make_plots", lambda source, items: [])
    folder = tmp_path / "run"
    write_study(folder)
    shown = CliRunner().invoke(cli, ["report", str(folder)])
    assert shown.exit_code == 0, shown.output
    assert "Nothing is shown." in shown.stdout
    assert f"page   {folder}/report/report.html" in shown.stdout
    assert "prompts left out:" in shown.stdout
    told = CliRunner().invoke(cli, ["report", str(folder), "--out", str(tmp_path / "other"), "--json"])
    result = json.loads(told.stdout)
    assert result.keys() >= {"task", "cells", "methods", "report"}
    assert Path(result["report"]["page"]) == tmp_path / "other/report.html"
    assert all(Path(path).is_file() for path in result["report"]["numbers"])


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("cells", 0, "cost"), None, "cells.0.cost: input should be a valid"),
        (("cells", 1, "n"), "20", "cells.1.n: input should be a valid integer"),
        (("methods", 0, "accuracy"), {}, "methods.0.accuracy.mean: field required"),
        (("records",), {}, "records.test: field required"),
        (("levels",), [], "levels: input should be a valid dictionary"),
        (("best",), {"of": "cells"}, "best.best: field required"),
    ],
)
def test_an_edited_result_is_one_line(tmp_path: Path, place: tuple[Any, ...], value: Any, said: str) -> None:
    """What a report cannot read is told with its place and file, not found out while drawing."""
    write_study(tmp_path)
    result = part = json.loads((tmp_path / "study.json").read_text())
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    (tmp_path / "study.json").write_text(json.dumps(result))
    with pytest.raises(RunError, match=rf"study\.json: {said}[^\n]*; give the same command again") as caught:
        write_report(tmp_path)
    assert "\n" not in str(caught.value)


def test_data_that_are_not_there_are_refused(tmp_path: Path) -> None:
    """A path that does not exist is an error before anything is written, not a prompt left out."""
    write_study(tmp_path / "run")
    with pytest.raises(DataError, match=r"^nosuch: no such file or folder$"):
        write_report(tmp_path / "run", data="nosuch")
    assert not (tmp_path / "run" / "report").exists()


def test_folders_without_a_finished_run_are_refused(tmp_path: Path) -> None:
    """No run, a run of something else, one that is not finished or damaged: one line says what to do."""
    with pytest.raises(RunError, match=r"holds no run \(no run.json\)"):
        write_report(tmp_path)
    folder = tmp_path / "run"
    write_study(folder)
    whole = (folder / "study.json").read_text()
    predictions = (folder / "predictions.parquet").read_bytes()
    (folder / "predictions.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunError, match=r"predictions.parquet: cannot be read; give the same command again"):
        write_report(folder)
    (folder / "predictions.parquet").write_bytes(predictions)
    (folder / "study.json").write_text(json.dumps({**json.loads(whole), "cells": json.loads(whole)["cells"][:-1]}))
    with pytest.raises(RunError, match=r"has 160 rows, study.json tells of 140"):
        write_report(folder)
    (folder / "study.json").write_text("{}")
    with pytest.raises(RunError, match=r"study.json: task: field required; give the same command again"):
        write_report(folder)
    (folder / "study.json").write_text("{")
    with pytest.raises(RunError, match=r"study.json: is damaged"):
        write_report(folder)
    (folder / "study.json").unlink()
    with pytest.raises(RunError, match=r"its run is not finished; give the same `promptkit study` again"):
        write_report(folder)
    (folder / "run.json").write_text('{"settings": {"command": "score"}}')
    with pytest.raises(RunError, match=r"holds a run of 'score'; a report needs one of study, compare"):
        write_report(folder)
    assert not (folder / "report").exists()
