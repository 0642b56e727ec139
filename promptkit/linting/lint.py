"""Lint templates and tasks: find defects without a model and without data."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jinja2
import regex
from jinja2 import nodes

from promptkit.data.answers import read_answer
from promptkit.data.record import Record
from promptkit.data.tasks import Task, find_tasks, load_task
from promptkit.errors import PromptkitError, TemplateError, nearest
from promptkit.prompts.prompt import render_completion, render_text
from promptkit.storage.paths import display_path, real_path
from promptkit.templating.imports import define_names
from promptkit.templating.sandbox import make_environment
from promptkit.templating.template import PARTS, SETTINGS, BoundTemplate, Template, find_templates, load_template
from promptkit.templating.type_stub import TypeStub

#: One look at a template through a record: says what is wrong.
Check = Callable[[BoundTemplate, Record], Iterator[str]]

_PLAIN_TEXT = "a plain text"
#: Characters that break carelessly made prompts; a template must show them as they are.
_HARD_TEXT = " two  spaces, {{ braces }} {% raw %} {text} ||| <b> \\N 100 % \t\r\n end "
#: Free answers of the usual kinds, of which a template must be able to read one.
_ANSWERS = ("7", "1984", "Paris", "yes", "B")
#: Signs of scripts that put no space between words, and of their punctuation.
_UNSPACED = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
    r"\p{Block=CJK_Symbols_And_Punctuation}\p{Block=Halfwidth_And_Fullwidth_Forms}]"
)


@dataclass(frozen=True)
class Defect:
    """One thing that is wrong: in which file, for which task, and what to do."""

    path: Path
    message: str
    task: str = ""

    def __str__(self) -> str:
        """Return one line: the message, led by its file where it does not name one, and the task."""
        place = "" if str(display_path(self.path)) in self.message else f"{display_path(self.path)}: "
        return f"{place}{self.message}" + (f" [task {self.task}]" if self.task else "")


@dataclass(frozen=True)
class LintResult:
    """What was checked, and what was found."""

    tasks: int
    templates: int
    pairs: int
    defects: tuple[Defect, ...]


def lint(paths: Sequence[str | Path] = ()) -> LintResult:
    """Check every template against every task it is meant for; no model and no data are loaded.

    `paths` are task files, template files or folders; without any, all that can be found are checked.
    A template is meant for the tasks whose `templates` names its family. Raises PromptkitError for a
    path that holds neither tasks nor templates.
    """
    task_files, template_files = _collect([Path(path) for path in paths])
    tasks, defects = [], []
    for path in task_files:
        try:
            tasks.append(load_task(path))
        except PromptkitError as error:
            defects.append(Defect(path, str(error)))
    pairs = 0
    for name, path in template_files.items():
        meant = [task for task in tasks if task.templates == name.rpartition("/")[0]]
        pairs += len(meant)
        defects += _lint_template(name, path, meant)
    return LintResult(len(task_files), len(template_files), pairs, tuple(dict.fromkeys(defects)))


def _collect(paths: Sequence[Path]) -> tuple[list[Path], dict[str, Path]]:
    """Return the task files and the templates by name; tasks are all known ones unless some are given."""
    known = find_templates()
    if not paths:
        return list(find_tasks().values()), known
    tasks: list[Path] = []
    templates: dict[str, Path] = {}
    for path in paths:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        kept = [file for file in files if file.suffix in (".toml", ".jinja") and file.is_file()]
        if not kept:
            raise PromptkitError(f"{path}: no task (.toml) and no template (.jinja) is there")
        tasks += [file for file in kept if file.suffix == ".toml"]
        for file in (file for file in kept if file.suffix == ".jinja" and not file.name.startswith("_")):
            name = next((name for name, other in known.items() if real_path(other) == real_path(file)), None)
            templates[name or f"{file.parent.name}/{file.stem}"] = file
    return tasks or list(find_tasks().values()), templates


def _lint_template(name: str, path: Path, tasks: Sequence[Task]) -> Iterator[Defect]:
    try:
        template = load_template(path)
    except TemplateError as error:
        yield Defect(path, str(error))
        return
    for message in _lint_names(template):
        yield Defect(path, message)
    if not template.description:
        yield Defect(path, "the first line is no {# comment #} that says what is particular about it")
    for task in tasks:
        try:
            for message in _lint_bound(template.bind(task)):
                yield Defect(path, message, task.name)
        except TemplateError as error:
            yield Defect(path, str(error), task.name)
    if not tasks:
        yield Defect(path, f"no task names the family {name.rpartition('/')[0]!r} as its `templates`")


def _lint_names(template: Template) -> Iterator[str]:
    """Report what the file defines and nothing uses, where it may be a part or a setting, misspelt."""
    name, source = next(iter(template.sources.items()))
    tree = make_environment(jinja2.BaseLoader()).parse(source.text, name)
    used = {use.name for use in tree.find_all(nodes.Name) if use.ctx == "load"}
    for defined, line in define_names(tree.body).items():
        near = nearest(defined, (*PARTS, *SETTINGS))
        if near and defined not in {*used, *PARTS, *SETTINGS}:
            yield f"{display_path(source.path)}:{line}: nothing uses {defined!r}.{near}"


def _lint_bound(bound: BoundTemplate) -> Iterator[str]:
    yield from _lint_instruction(bound)
    checks: list[tuple[Check, str]]
    checks = [(_lint_input, _PLAIN_TEXT), (_lint_targets, _PLAIN_TEXT), (_lint_fields, _PLAIN_TEXT)]
    if bound.template.is_cot:
        checks.append((_lint_rationale, _PLAIN_TEXT))
    if bound.task.is_free_text:
        checks.append((_lint_reading, _PLAIN_TEXT))
    for check, text in [*checks, (_lint_bytes, _HARD_TEXT)]:
        yield from _run_check(check, bound, text)


def _run_check(check: Check, bound: BoundTemplate, text: str) -> list[str]:
    """Return what the check finds; nothing where the template takes a field for something else than text."""
    record = _sample(bound.task, text)
    try:
        found = list(check(bound, record))
    except TemplateError:
        found = []
        if not any(value.uses for value in record.fields.values()):
            raise
    return [] if any(value.uses for value in record.fields.values()) else found


def _lint_input(bound: BoundTemplate, record: Record) -> Iterator[str]:
    text = bound.input(record)
    if text != text.rstrip():
        yield f"the input ends with white space {text[len(text.rstrip()) :]!r}; the target begins with it instead"
    if text.strip() == "":
        yield "the input is empty"


def _lint_targets(bound: BoundTemplate, record: Record) -> Iterator[str]:
    choices = bound.choices(record)
    before = bound.rationale if bound.template.is_cot else bound.input
    for choice in choices or (bound.target(record),):
        if _melts(choice, lambda: before(record)):
            yield f"the target {choice!r} does not begin with white space; it would melt into the input"
        if choice.strip() == "":
            yield f"the target {choice!r} is empty"
    yield from _lint_choices(choices)


def _melts(text: str, before: Callable[[], str]) -> bool:
    """Whether the text would become one with what is before it, where words are written apart."""
    return text == text.lstrip() and not any(_UNSPACED.match(sign) for sign in (text[:1], before()[-1:]))


def _lint_choices(choices: Sequence[str]) -> Iterator[str]:
    for first, second in itertools.permutations(choices, 2):
        if first == second:
            yield f"two labels have the same target {first!r}"
        elif second.startswith(first):
            yield f"the target {first!r} is the beginning of {second!r}, so it can never be less likely"


def _lint_instruction(bound: BoundTemplate) -> Iterator[str]:
    text = bound.instruction
    if text != text.strip():
        yield "the instruction begins or ends with white space; the separator stands around it"
    names = {"labels", *(name for part in bound.template.parts.values() for name in part.arguments)}
    left = regex.search(rf"(?<![A-Za-z])\{{+\s*(?:{'|'.join(names)})\s*\}}+", text)  # \boxed{answer} is none
    if left:
        yield f"the instruction shows {left.group()!r}: a placeholder that was not filled?"


def _lint_rationale(bound: BoundTemplate, record: Record) -> Iterator[str]:
    completion = render_completion(bound, record)
    if _melts(completion, lambda: bound.input(record)):
        yield f"the rationale {completion[:30]!r} does not begin with white space; it would melt into the input"
    target = bound.target(record)
    stops = bound.template.stop
    if stops and not bound.task.is_free_text and not any(target.startswith(stop) for stop in stops):
        yield f"no `stop` of {list(stops)} begins the target {target!r}, so the rationale would run into it"


def _lint_reading(bound: BoundTemplate, record: Record) -> Iterator[str]:
    """Report a free answer that cannot be read from what the template itself writes."""
    stops, pattern = bound.template.stop or (bound.template.separator,), bound.template.answer or ""
    written = [render_completion(bound, replace(record, label=answer)) for answer in _ANSWERS]
    if any(_reads(pattern, _cut(text, stops)) for text in written):
        return
    whole = repr(written[0])
    if any(_reads(pattern, text) for text in written):
        yield f"a `stop` of {list(stops)} leaves {_cut(written[0], stops)!r} of the completion {whole}: no answer"
    else:
        yield f"`answer` {pattern!r} reads nothing from the completion {whole}; let the target show what it looks for"


def _cut(text: str, stops: Sequence[str]) -> str:
    return text[: min((text.index(stop) for stop in stops if stop and stop in text), default=len(text))]


def _reads(pattern: str, text: str) -> bool:
    return read_answer(text, pattern) is not None


def _lint_fields(bound: BoundTemplate, record: Record) -> Iterator[str]:
    """Report what the input does not show: changing it must change the prompt."""
    text = render_text(bound, record)
    for name in bound.task.input_fields:
        other = replace(record, fields={**record.fields, name: "something else"})
        if name in bound.template.parts["input"].arguments and render_text(bound, other) == text:
            yield f"the input takes {name!r} and does not show it"


def _lint_bytes(bound: BoundTemplate, record: Record) -> Iterator[str]:
    """Report text that does not come through as it is."""
    shown = bound.input(record)
    for name in bound.task.input_fields:
        if name in bound.template.parts["input"].arguments and str(record.fields[name]) not in shown:
            yield f"the input changes the text of {name!r}; data must pass through byte for byte"


def _sample(task: Task, text: str) -> Record:
    choices = ("the first choice", "another choice") if task.has_choices else None
    return Record(
        id="sample",
        fields={name: TypeStub(f"{text} of {name}, {text}") for name in task.input_fields},
        label="7" if task.is_free_text else 0,
        rationale="The first part is 3. The second part is 4.",
        choices=choices,
    )
