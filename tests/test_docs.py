"""The documentation: its code runs, its templates and tasks load, its commands exist."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from promptkit.building import load_mixture
from promptkit.cli import cli
from promptkit.costs.prices import load_prices
from promptkit.data.tasks import load_task
from promptkit.experiments.grid import load_settings
from promptkit.templating.template import load_template
from tests.conftest import Project

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
#: The shipped task that an example's fields belong to.
TASK_OF = {"choices": "openbookqa", "question": "word-problems", "text": "reviews"}


def blocks(kind: str) -> list[tuple[str, str]]:
    """Return (page and number, code) for every fenced block of a kind."""
    found = []
    for page in PAGES:
        for number, code in enumerate(re.findall(rf"```{kind}\n(.*?)```", page.read_text(), re.S)):
            found.append((f"{page.stem}-{number}", code))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_blocks_run(page: Path, project: Project) -> None:
    """Code on a page runs from top to bottom as it stands, on the model that ships."""
    names: dict[str, object] = {}
    for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
        exec(compile(code, page.name, "exec"), names)


@pytest.mark.parametrize(("name", "code"), blocks("jinja"), ids=lambda value: value[:20])
def test_templates_on_the_pages_fit_a_task(name: str, code: str, project: Project) -> None:
    """Every template that is shown whole loads and fits the task whose fields it asks for."""
    template = load_template(project.write(f"docs/{name}.jinja", code))
    task = next(task for field, task in TASK_OF.items() if field in template.parts["input"].arguments)
    template.bind(load_task(task))


@pytest.mark.parametrize(("name", "code"), blocks("toml"), ids=lambda value: value[:20])
def test_files_on_the_pages_load(name: str, code: str, project: Project) -> None:
    """Every task file, mixture and file of a study's settings that is shown is valid."""
    loaders: dict[str, Callable[[Path], object]] = {
        "studies": load_settings,
        "building": load_mixture,
        "cost": load_prices,
    }
    load = loaders.get(name.split("-")[0], load_task)
    load(project.write(f"tasks/{name}.toml", code))


def command_lines() -> list[tuple[str, str, str]]:
    """Return (page, verb, words behind it) of every promptkit command in a shell block or in backticks."""
    found = []
    for page in PAGES:
        text = page.read_text()
        shell = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.S)) + "\n".join(
            re.findall(r"`(promptkit [^`\n]+)`", text)
        )
        found += [(page.name, *match) for match in re.findall(r"\bpromptkit ([a-z]+)([^#\n]*)", shell)]
    return found


def test_every_verb_is_in_the_readme_and_every_command_exists() -> None:
    """What the pages say after `promptkit` is a verb, and the README names every verb."""
    lines = command_lines()
    assert {verb for _, verb, _ in lines} <= set(cli.commands)
    assert {verb for page, verb, _ in lines if page == "README.md"} == set(cli.commands)


def test_options_on_the_pages_exist() -> None:
    """Every option of a command line on the pages is one of its verb."""
    for page, verb, words in command_lines():
        known = {name for option in cli.commands[verb].params for name in (*option.opts, *option.secondary_opts)}
        assert set(re.findall(r"(?<![^\s\[])(--?[a-z][\w-]*)", words)) <= known, f"{page}: {verb}{words}"


def test_layout_in_the_readme_is_the_layout() -> None:
    """The README's tree names every module of the package, and nothing that is not there."""
    tree = PAGES[0].read_text().split("## Layout")[1].split("```")[1]
    named = set(re.findall(r"^  (\w+(?:\.py|/))", tree, re.M))
    package = ROOT / "promptkit"
    there = {path.name for path in package.glob("*.py")}
    there |= {f"{path.name}/" for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert named == there


def test_links_between_pages_lead_somewhere() -> None:
    """Every relative link points to a file."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_no_page_is_unfinished() -> None:
    """Pages hold figures and sentences, not the places where they should stand."""
    for page in PAGES:
        assert not re.search(r"^[A-Z]{4,}$", page.read_text(), re.M), page.name
