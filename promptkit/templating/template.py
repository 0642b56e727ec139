"""Load a template file: one way to put a task into words, checked against the task."""

from __future__ import annotations

import fnmatch
import hashlib
import warnings
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.runtime import Macro

from promptkit.data.answer_rules import check_rule
from promptkit.data.library import find_names, kept_file, search_folders
from promptkit.data.record import EMPTY_QUERY, Record
from promptkit.data.tasks import Task
from promptkit.errors import PatternError, PromptkitWarning, TemplateError, nearest
from promptkit.storage.files import is_there
from promptkit.storage.paths import display_path, lies_in, real_path
from promptkit.templating.environment import Rewrite, Sandbox
from promptkit.templating.imports import TemplateSource, parse_all
from promptkit.templating.limits import RenderBudget
from promptkit.templating.sandbox import RENDER_ERRORS, explain_render_error, folder_loader, make_environment

#: The parts of a template, in the order in which they stand in a prompt.
PARTS = ("instruction", "input", "rationale", "target")
#: The settings a template may `{% set %}`, and their types.
SETTINGS: dict[str, type | tuple[type, ...]] = {
    "labels": dict,
    "separator": str,
    "stop": (str, list, tuple),
    "answer": str,
    "max_tokens": int,
}
SEPARATOR = "\n\n"
_MAX_TOKENS = {True: 160, False: 32}  # by whether a rationale is to be written


@dataclass(frozen=True)
class TemplatePart:
    """One macro of a template: what it takes, where it stands, how it is called.

    `macro` is the name it has in the file at `path`, where it begins on `line`.
    """

    name: str
    macro: str
    path: Path
    line: int
    arguments: tuple[str, ...]
    required: tuple[str, ...]
    call: Callable[..., str]
    budget: RenderBudget = field(default_factory=RenderBudget, repr=False, compare=False)

    @property
    def place(self) -> str:
        """File and line, for messages."""
        return f"{display_path(self.path)}:{self.line}"

    def fit(self, available: Container[str]) -> TemplatePart:
        """Return the part without the optional arguments that nothing can fill."""
        filled = tuple(name for name in self.arguments if name in available)
        if filled == self.arguments:
            return self

        def call(*values: Any) -> str:
            return self.call(**dict(zip(filled, values, strict=True)))

        return replace(self, arguments=filled, call=call)


@dataclass(frozen=True)
class Template:
    """A loaded template file.

    `hash` is a hex digest of everything its text depends on: the file and what it imports.
    `labels` maps a task's labels to the words that stand for them (empty: the labels themselves).
    `separator` stands between instruction, demonstrations and query. `stop`, `max_tokens` and `answer` (a rule's name
    or a regular expression) say how what the model writes ends and how it is read. `sources` are the file, first, and
    those it imports, by their names below the template folders.
    """

    name: str
    path: Path
    hash: str
    description: str
    parts: Mapping[str, TemplatePart]
    labels: Mapping[str, str] = field(default_factory=dict)
    separator: str = SEPARATOR
    stop: tuple[str, ...] = ()
    answer: str | None = None
    max_tokens: int = 0
    sources: Mapping[str, TemplateSource] = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_cot(self) -> bool:
        """Whether a rationale comes before the answer (a chain-of-thought template)."""
        return "rationale" in self.parts

    @property
    def family(self) -> str | None:
        """The folder of the template below `templates`; None for a file that lies elsewhere."""
        return self.name.rpartition("/")[0] if self.path.match(f"templates/{self.name}.jinja") else None

    def bind(self, task: Task, *, system: str = "system") -> BoundTemplate:
        """Check the template against `task` and return it ready to render the task's records.

        `system` says which turn of a chat holds the instruction, see `BoundTemplate`.

        Raises TemplateError, with file and line, where a part asks for a field that the task does not
        have (the nearest name is suggested) or where `labels` leaves out a label of the task. Warns where the template
        lies in another family than the task's `templates`: it may ask for something else.
        """
        if self.family not in (None, task.templates):
            warnings.warn(
                f"template {self.name!r} is of the family {self.family!r}, and the task {task.name!r} is meant for "
                f"{task.templates!r}; see what it asks: promptkit show {task.name} --template {self.name}",
                PromptkitWarning,
                stacklevel=2,
            )
        if task.is_free_text and self.answer is None:
            raise TemplateError(
                f"{display_path(self.path)}: task {task.name!r} is answered in free text; the template does not say "
                'how to read it; add {% set answer = "number" %}, or a regular expression with a group, "…(…)…"'
            )
        return BoundTemplate(self._fit(task), task, _words(self, task), system)

    def _fit(self, task: Task) -> Template:
        return replace(self, parts={name: _fit(part, task) for name, part in self.parts.items()})

    def __getstate__(self) -> dict[str, Any]:
        """Return what goes to another process: compiled parts stay here where the files make them again."""
        files = {source.path for source in self.sources.values()}
        made_again = _hash(self.sources) == self.hash and all(part.path in files for part in self.parts.values())
        return {name: value for name, value in vars(self).items() if name != "parts" or not made_again}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if "parts" not in state:
            vars(self)["parts"] = rewrite_template(self, None).parts


@dataclass(frozen=True)
class BoundTemplate:
    """A template that fits a task; renders the task's records, part by part, byte for byte.

    `words` are the verbalizers in the order of the task's labels (empty where the task has none). `system` is the turn
    of a chat that holds the instruction: "system" its own, "user" the first user's.
    """

    template: Template
    task: Task
    words: tuple[str, ...]
    system: str = "system"

    def __getstate__(self) -> dict[str, Any]:
        return {"template": self.template, "task": self.task, "words": self.words, "system": self.system}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update({**state, "template": state["template"]._fit(state["task"])})

    @cached_property
    def instruction(self) -> str:
        """The instruction's text, empty where the template has none."""
        part = self.template.parts.get("instruction")
        return self._call(part, {"labels": list(self.words)}, "instruction") if part else ""

    @cached_property
    def head(self) -> str:
        """What stands before the first demonstration or the query: the instruction, if any, and the separator."""
        return self.instruction + self.template.separator if self.instruction else ""

    @cached_property
    def _input(self) -> TemplatePart:
        return self.template.parts["input"]

    def input(self, record: Record) -> str:
        """Return the record as it is asked; the label has no way into it."""
        values, part = self._values(record), self._input
        part.budget.start()
        try:
            return part.call(*[values[name] for name in part.arguments])
        except RENDER_ERRORS as error:
            raise explain_render_error(error, f"input of record {record.id!r}") from error

    def rationale(self, record: Record) -> str:
        """Return the record's rationale as a demonstration shows it and training teaches it."""
        if record.rationale is None:
            raise TemplateError(
                f"{self.template.parts['rationale'].place}: {self.template.name} reasons before it answers, "
                f"but record {record.id!r} has no rationale; use a template without one, or map `rationale` to a "
                "column of the data"
            )
        values = {**self._values(record), "rationale": record.rationale}
        return self._call(self.template.parts["rationale"], values, f"rationale of record {record.id!r}")

    def choices(self, record: Record) -> tuple[str, ...]:
        """Return the rendered target of every label; empty where the answer is free text."""
        if self.shared_choices is not None:
            return self.shared_choices
        labels = self.words or record.choices or ()
        return tuple(self._target(record, label, index) for index, label in enumerate(labels))

    def target(self, record: Record) -> str:
        """Return the rendered target of the record's own label: the text that training teaches."""
        if record.label is None:
            raise TemplateError(f"record {record.id!r} has no label, so its answer cannot be shown")
        if isinstance(record.label, int):
            return self.choices(record)[record.label]
        return self._target(record, record.label, 0)

    @cached_property
    def shared_choices(self) -> tuple[str, ...] | None:
        """The choices of every record, where a target depends on nothing but its label.

        Raises TemplateError where two labels have the same: no score could tell them apart.
        """
        if not self.words or not set(self.template.parts["target"].arguments) <= {"label", "index", "labels"}:
            return None
        choices = tuple(self._target(EMPTY_QUERY, word, index) for index, word in enumerate(self.words))
        for index, choice in enumerate(choices):
            if (first := choices.index(choice)) < index:
                pair = f"{self.words[first]!r} and {self.words[index]!r}"
                raise TemplateError(
                    f"template {self.template.name}: two labels have the same target {choice!r}, {pair}; "
                    "let `target` print the label"
                )
        return choices

    def _target(self, record: Record, label: str, index: int) -> str:
        values = {**self._values(record), "label": label, "index": index}
        return self._call(self.template.parts["target"], values, f"target of record {record.id!r}")

    def _values(self, record: Record) -> Mapping[str, Any]:
        if self.words:
            return {**record.fields, "labels": list(self.words)} if self._asks_for_labels else record.fields
        return {**record.fields, "choices": list(record.choices or ())}

    @cached_property
    def _asks_for_labels(self) -> bool:
        return any("labels" in part.arguments for part in self.template.parts.values())

    def _call(self, part: TemplatePart, values: Mapping[str, Any], where: str) -> str:
        part.budget.start()
        try:
            return part.call(*[values[name] for name in part.arguments])
        except RENDER_ERRORS as error:
            raise explain_render_error(error, where) from error


def find_templates() -> dict[str, Path]:
    """Return name (`family/name`) -> file of every template, the working directory's first."""
    return find_names("templates", ".jinja")


def is_glob(pattern: str) -> bool:
    """Return whether a template's name may stand for several: `*`, `?` and `[` are signs of a glob."""
    return any(sign in pattern for sign in "*?[")


def match_templates(patterns: Iterable[str], family: str) -> list[str]:
    """Return the names that match `patterns`: names inside `family`, full names, or globs of either.

    A pattern without a slash is looked for in the family first. Raises TemplateError for one that matches nothing.
    """
    names = find_templates()
    found: list[str] = []
    for pattern in patterns:
        if pattern.endswith(".jinja") and (kept_file(pattern) or is_there(Path(pattern))):
            matches = [pattern]
        else:
            full, within = (fnmatch.filter(names, way) for way in (pattern, f"{family}/{pattern}"))
            matches = full or within if "/" in pattern else within or full
        if not matches:
            near = nearest(pattern, [*names, *(name.split("/")[-1] for name in names)])
            raise TemplateError(f"no template matches {pattern!r}; `promptkit list templates` shows them.{near}")
        found += [name for name in matches if name not in found]
    return found


def load_template(name: str | Path) -> Template:
    """Load a template by its name (`sentiment/plain`) or by the path of its file.

    Raises TemplateError, naming file and line, for an unknown name, a syntax error, a missing part,
    a setting of the wrong type, and anything that the sandbox refuses.
    """
    folders, file, name = _locate(str(name))
    return _assemble(make_environment(folder_loader(folders)), file, name)


def rewrite_template(template: Template, rewrite: Rewrite | None) -> Template:
    """Return the template assembled again from what was read, after `rewrite` changed the syntax tree of each file.

    Its hash is the same: whoever changes what is rendered has to change that too.
    """
    files = {name: (source.text, str(source.path), None) for name, source in template.sources.items()}
    environment = make_environment(jinja2.FunctionLoader(files.get), rewrite)
    return _assemble(environment, next(iter(files)), template.name)


def _assemble(environment: Sandbox, file: str, name: str) -> Template:
    sources, trees = parse_all(environment, file)
    path = sources[file].path
    variables = _run(environment, file, path)
    settings = _settings(variables, path)
    parts = _parts(
        variables, path, environment.budget, {str(source.path): trees[name] for name, source in sources.items()}
    )
    first_line = sources[file].text.split("#}")[0]
    description = first_line[2:].strip() if first_line.startswith("{#") else ""
    settings.setdefault("max_tokens", _MAX_TOKENS["rationale" in parts])
    return Template(name, path, _hash(sources), description, parts, sources=sources, **settings)


def _hash(sources: Mapping[str, TemplateSource]) -> str:
    digest = hashlib.sha256()
    for name in sorted(sources):
        digest.update(f"{name}\0{sources[name].text}\0".encode())
    return digest.hexdigest()


def _locate(name: str) -> tuple[tuple[Path, ...], str, str]:
    """Return (folders to search, file name below them, the template's name)."""
    folders = search_folders("templates")
    path = Path(name)
    if kept := kept_file(name):
        return (kept.parent, *folders), kept.name, path.with_suffix("").as_posix()
    if name.endswith(".jinja"):
        if not is_there(path):
            raise TemplateError(f"{name}: no such template file; `promptkit list templates` shows the known names")
        for folder in folders:
            if lies_in(path, folder):
                relative = real_path(path).relative_to(real_path(folder))
                return folders, relative.as_posix(), relative.with_suffix("").as_posix()
        return (path.parent, *folders), path.name, path.with_suffix("").as_posix()
    known = find_templates()
    if name not in known:
        raise TemplateError(f"unknown template {name!r}; `promptkit list templates` shows them.{nearest(name, known)}")
    return folders, f"{name}.jinja", name


def _run(environment: Sandbox, file: str, path: Path) -> dict[str, Any]:
    """Run the file's top level; return what it defines, including names it imported with `from`."""
    try:
        template = environment.get_template(file)
        environment.budget.start()
        context = template.new_context()
        for _ in template.root_render_func(context):
            pass
    except RENDER_ERRORS as error:
        raise explain_render_error(error, "top level", path) from error
    return context.vars


def _settings(variables: Mapping[str, Any], path: Path) -> dict[str, Any]:
    settings = {name: variables[name] for name in SETTINGS if name in variables}
    for name, value in settings.items():
        if not isinstance(value, SETTINGS[name]) or isinstance(value, bool):
            raise TemplateError(f"{display_path(path)}: `{name}` is {value!r}; {_expected(name)}")
    stop = settings.get("stop", ())
    settings["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
    words = settings.setdefault("labels", {})
    texts = [*words, *words.values(), *settings["stop"]]
    if not all(isinstance(text, str) and text for text in texts):
        raise TemplateError(f"{display_path(path)}: `labels` and `stop` hold text that is not empty")
    if settings.get("max_tokens", 1) < 1:
        raise TemplateError(f"{display_path(path)}: `max_tokens` is {settings['max_tokens']}; 1 or more is needed")
    if "answer" in settings:
        _check_answer(settings["answer"], path)
    return settings


def _check_answer(pattern: str, path: Path) -> None:
    try:
        check_rule(pattern)
    except PatternError as error:
        raise TemplateError(f"{display_path(path)}: `answer`: {error}") from error


def _expected(name: str) -> str:
    return {
        "labels": 'a mapping such as {"negative": "bad", "positive": "good"} was expected',
        "separator": "text was expected",
        "stop": 'a list such as ["\\nAnswer:"] was expected',
        "answer": "the name of a rule or a regular expression, in quotes, was expected",
        "max_tokens": "a whole number of tokens was expected",
    }[name]


def _parts(
    variables: Mapping[str, Any], path: Path, budget: RenderBudget, trees: Mapping[str, nodes.Template]
) -> dict[str, TemplatePart]:
    parts = {}
    for name in PARTS:
        macro = variables.get(name)
        if isinstance(macro, Macro):
            parts[name] = _part(name, macro, budget, trees)
        elif macro is not None:
            raise TemplateError(f"{display_path(path)}: `{name}` must be a macro, found {type(macro).__name__}")
    missing = [name for name in ("input", "target") if name not in parts]
    if missing:
        macros = [name for name, value in variables.items() if isinstance(value, Macro)]
        raise TemplateError(
            f"{display_path(path)}: no macro {missing[0]!r}; a template needs `input` and `target` "
            f"(found: {', '.join(macros) or 'none'}).{nearest(missing[0], macros)}"
        )
    return parts


def _part(name: str, macro: Macro, budget: RenderBudget, trees: Mapping[str, nodes.Template]) -> TemplatePart:
    code = macro._func.__code__
    tree = trees[code.co_filename]
    node = next(node for node in tree.find_all(nodes.Macro) if node.name == macro.name)
    optional = len(node.defaults)
    required = macro.arguments[: len(macro.arguments) - optional]
    path = Path(code.co_filename)
    # The compiled body is called directly: the checks around it cost more than a simple render.
    plain = not (optional or macro.catch_kwargs or macro.catch_varargs or macro.caller)
    call = macro._func if plain else macro
    return TemplatePart(name, node.name, path, node.lineno, tuple(macro.arguments), tuple(required), call, budget)


def _fit(part: TemplatePart, task: Task) -> TemplatePart:
    """Check what the part asks for against what the task gives it."""
    allowed = set(task.input_fields) if part.name != "instruction" else set()
    if task.labels is not None:
        allowed.add("labels")
    if task.has_choices and part.name != "instruction":
        allowed.add("choices")
    allowed |= {"target": {"label", "index"}, "rationale": {"rationale"}}.get(part.name, set())
    for name in part.arguments:
        if name in allowed:
            continue
        if name in ("label", "rationale") and part.name == "input":
            raise TemplateError(f"{part.place}: input must not take {name!r}: a query would show its own answer")
        if name in part.required:
            raise TemplateError(
                f"{part.place}: {part.name} asks for {name!r}, which task {task.name!r} does not give it "
                f"(it has: {', '.join(sorted(allowed)) or 'nothing'}).{nearest(name, allowed)}"
            )
    return part.fit(allowed)


def _words(template: Template, task: Task) -> tuple[str, ...]:
    if task.labels is None:
        return ()
    if not template.labels:
        return task.labels
    missing = [label for label in task.labels if label not in template.labels]
    if missing:
        raise TemplateError(
            f"{display_path(template.path)}: `labels` has no word for {missing[0]!r} of task {task.name!r} "
            f"(it has: {', '.join(template.labels)}).{nearest(missing[0], template.labels)}"
        )
    words = tuple(template.labels[label] for label in task.labels)
    if len(set(words)) < len(words):
        raise TemplateError(f"{display_path(template.path)}: two labels of task {task.name!r} share one word: {words}")
    return words
