"""Put a template in another form with the same words: separators, casing, spacing, list markers.

The axes are those of FormatSpread (Sclar et al. 2024, section 3.1), and `between`. Only the literal text of the
template changes, through its syntax tree, so data pass through byte for byte, and prompts, choices and training
pairs agree as they do in the template's own form.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import jinja2
from jinja2 import nodes

from promptkit.data.answer_rules import read_rule
from promptkit.data.records import hash_order
from promptkit.errors import TemplateError, nearest
from promptkit.templating.formatting import AXES, CASINGS, Format
from promptkit.templating.literals import (
    BRANCH,
    CALL,
    VALUE,
    Change,
    Literal,
    TextLayout,
    change_literals,
    change_text,
    find_called,
    lay_out,
    number_literals,
    write_literals,
)
from promptkit.templating.sandbox import make_environment
from promptkit.templating.template import Template, TemplatePart, rewrite_template

#: What `sample_formats` draws from: FormatSpread's, without those at which no target could begin.
SAMPLED: dict[str, tuple[str | None, ...]] = {
    "sep": (": ", "::: ", ":: ", " : ", " - ", "- ", " ", "\t", "\n ", "\n\t", "\n    ", " \n\t"),
    "case": (None, "title", "upper", "lower"),
    "space": ("\n", " ", "  ", " \n", "\n ", " \n ", " -- ", " || ", " <sep> ", " , ", " ,  "),
    "between": ("\n\n", "\n", "\n\n\n", "\n\n---\n\n"),
}
BULLETS = ("-", "*", "+", "•")
WRAPPERS = ("x.", "x)", "(x)", "[x]", "<x>")

_ANY = f"[{VALUE}{CALL}]"
# A field's name: the beginning of a line up to its colon, without the end of a sentence. Only in parentheses may
# values stand in it.
_NAME = rf"(?P<name>[^\W\d_](?:[^:.?!;()\"\n\r{VALUE}{CALL}{BRANCH}]|\([^()\n\r:]*\)){{0,80}}?)"
_FIELD = re.compile(
    rf"(?:(?P<space>\A\s*|\s*\n\s*)|(?<=[{CALL}{BRANCH}])){_NAME}"
    rf"(?P<sep>[ \t]*:(?:[ \t]*\r?\n[ \t]*(?={VALUE})|[ \t]*(?P<bare>(?=\r?\n)|\Z)|[ \t]+|(?={BRANCH})|(?={_ANY})))"
)
_STOP = re.compile(rf"\s*{_NAME}(?P<sep>[ \t]*:\s*|\Z)")
_BULLET = re.compile(rf"(?:\A|(?<=\n))[ \t]*(?P<bullet>[-*•+–])(?=[ \t]+{_ANY})")
_NUMBER = rf"(?P<open>[(\[<]?){_ANY}(?P<close>[.):\]>]+)(?=[ \t]+{_ANY})"
_IN_LIST, _IN_TARGET = re.compile(rf"(?:\A|(?<=\n))[ \t]*{_NUMBER}"), re.compile(rf"\A\s*{_NUMBER}")


def apply_format(template: Template, form: Format) -> Template:
    """Return the template in another form; the template itself where that is the form it has.

    Its hash differs wherever a byte of its text does; its name stays. The separator between demonstrations and
    the texts of `stop` follow the form.

    Raises TemplateError where the template has no fields (lines such as `Name: value`), or, if nothing but a
    marker is given, no list, and where its answer would no longer be read or ended as it is.
    """
    surface = _Surface(template)
    own, other = surface.put(Format()), surface.put(form)
    if other == own:
        return template
    paths = {str(source.path): name for name, source in template.sources.items()}
    changed = dict(other.changed)

    def rewrite(tree: nodes.Template, path: str) -> None:
        write_literals(tree, dict(changed.get(paths[path], ())))

    digest = hashlib.sha256(f"{template.hash}\0{other!r}".encode()).hexdigest()
    return replace(rewrite_template(template, rewrite), hash=digest, separator=other.separator, stop=other.stop)


def sample_formats(
    count: int,
    template: Template | None = None,
    *,
    seed: int = 0,
    axes: Collection[str] = ("sep", "case", "space", "marker"),
) -> tuple[Format, ...]:
    """Return `count` formats: the template's own, then random ones by the hash of (seed, name).

    Fewer formats are the first of more. With a template, no two give it the same text, those it cannot take are
    passed over, and `marker` is varied where it has lists; without one, `marker` is not varied.

    Raises TemplateError for an unknown axis, a template without fields, and more formats than there are.
    """
    for axis in axes:
        if axis not in AXES:
            raise TemplateError(f"unknown axis {axis!r} of a format; known: {', '.join(AXES)}.{nearest(axis, AXES)}")
    surface = _Surface(template) if template else None
    if surface and count > 1:
        surface.put(Format(separator=": "))  # raises where there are no fields
    values = {axis: texts for axis, texts in SAMPLED.items() if axis in axes}
    if surface:
        values |= {"marker": surface.markers} if "marker" in axes else {}
        values = {axis: texts for axis, texts in values.items() if surface.has_effect(axis, texts)}
    names = [AXES[axis] for axis in values]
    drawn = [Format(**dict(zip(names, each, strict=True))) for each in itertools.product(*values.values())]
    found: dict[object, Format] = {}
    for form in (Format(), *sorted(drawn, key=lambda form: hash_order(f"format {seed}", form.name))):
        if len(found) == count:
            break
        found.setdefault(surface.try_put(form) if surface else form, form)
        found.pop(None, None)
    if len(found) < count:
        where = f"template {template.name!r} has" if template else "there are"
        raise TemplateError(
            f"{count} formats were asked for; {where} {len(found)} over {', '.join(axes)}; ask for fewer"
        )
    return tuple(found.values())


@dataclass(frozen=True)
class _Form:
    """What a format comes to in one template: changed literals by file, separator and stop texts."""

    changed: tuple[tuple[str, tuple[tuple[int, Literal], ...]], ...]
    separator: str
    stop: tuple[str, ...]


@dataclass(frozen=True)
class _Macro:
    """A macro that a template renders, and the file it stands in."""

    file: str
    layout: TextLayout


class _Surface:
    """Where a template's fields and lists are, ready to be put in any form."""

    def __init__(self, template: Template) -> None:
        self.template = template
        environment = make_environment(jinja2.BaseLoader())
        trees = {
            name: environment.parse(source.text, name, str(source.path)) for name, source in template.sources.items()
        }
        self.literals = {name: number_literals(tree) for name, tree in trees.items()}
        files = {source.path: name for name, source in template.sources.items()}
        macros = {
            (name, macro.name, macro.lineno): macro for name in trees for macro in trees[name].find_all(nodes.Macro)
        }

        def key(part: TemplatePart) -> tuple[str, str, int]:
            return files[part.path], part.macro, part.line

        called = find_called([macros[key(part)] for part in template.parts.values()], trees.values())
        shown = {key(part) for part in template.parts.values()}
        made = {
            each: _Macro(each[0], lay_out(macro, self.literals[each[0]]))
            for each, macro in macros.items()
            if each in shown or macro.name in called
        }
        self.macros = list(made.values())
        self.parts = {name: made[key(part)] for name, part in template.parts.items()}
        self.fields = {
            name: list(_FIELD.finditer(macro.layout.text))
            for name, macro in self.parts.items()
            if name != "instruction"
        }
        self.has_bullets = any(True for macro in self.macros for _ in _find_bullets(macro.layout))
        self.has_numbers = any(True for macro in self.macros for _ in _find_numbers(macro.layout))

    @property
    def markers(self) -> tuple[str, ...]:
        """The markers that its lists can be given."""
        return (BULLETS if self.has_bullets else ()) + (WRAPPERS if self.has_numbers else ())

    @property
    def answer(self) -> str:
        """The part that follows the input."""
        return "rationale" if self.template.is_cot else "target"

    def has_effect(self, axis: str, texts: Collection[str | None]) -> bool:
        """Whether the values of an axis tell apart any two texts of the template."""
        return len({self.try_put(Format(**{AXES[axis]: text})) for text in texts} - {None}) > 1

    def try_put(self, form: Format) -> _Form | None:
        """Return what `put` does, or None where the template cannot take the form."""
        try:
            return self.put(form)
        except TemplateError:
            return None

    def put(self, form: Format) -> _Form:
        """Return what the format comes to here; raises TemplateError where that cannot be."""
        self._check_can_take(form)
        changes: dict[int, list[Change]] = {id(macro): list(self._mark(macro, form)) for macro in self.macros}
        for name in self.fields:
            macro = self.parts[name]
            changes[id(macro)] += [*self._lead(name, form), *self._change_fields(name, form)]
        stop = tuple(self._change_stop(text, form) for text in self.template.stop)
        separator = self.template.separator if form.between is None else form.between
        texts = {name: change_text(macro.layout, changes[id(macro)]) for name, macro in self.parts.items()}
        self._check_answer(texts, stop, separator)
        changed: dict[str, dict[int, Literal]] = {}
        for macro in self.macros:
            for number, literal in change_literals(macro.layout, changes[id(macro)]).items():
                if literal != Literal(self.literals[macro.file][number].data):
                    changed.setdefault(macro.file, {})[number] = literal
        return _Form(
            tuple((file, tuple(sorted(each.items()))) for file, each in sorted(changed.items())), separator, stop
        )

    @property
    def _is_open(self) -> bool:
        """Whether the input ends with the name of a field, whose value the answer is."""
        fields = self.fields["input"]
        return bool(fields) and fields[-1].end() == len(self.parts["input"].layout.text)

    def _check_can_take(self, form: Format) -> None:
        part = self.template.parts["input"]
        asks = any(value is not None for value in (form.separator, form.casing, form.spacing))
        if asks and not any(self.fields.values()):
            raise TemplateError(
                f"{part.place}: the input has no field, a line that begins with a name and a colon such as "
                "`Text: {{ text }}`, so it has no separators, casing and spacing to vary; use another template"
            )
        is_there = self.has_numbers if "x" in (form.marker or "") else self.has_bullets
        if form.marker is not None and replace(form, marker=None) == Format() and not is_there:
            kind = "lettered or numbered list" if "x" in form.marker else "list with bullets"
            raise TemplateError(f"{part.place}: the template shows no {kind} to mark with {form.marker!r}")
        answer = self.parts[self.answer].layout
        if form.separator is not None and self._is_open and answer.owner(0, 1) is None:
            raise TemplateError(
                f"{self.template.parts[self.answer].place}: {self.answer} begins with a value; it must begin with "
                "white space of its own for the separator in front of it to be varied"
            )

    def _mark(self, macro: _Macro, form: Format) -> Iterator[Change]:
        """Yield what gives the lists of a macro, and the number that an answer repeats, another marker."""
        if form.marker is None:
            return
        if "x" not in form.marker:
            for start, end in _find_bullets(macro.layout):
                yield Change(start, end, form.marker)
            return
        opening, closing = form.marker.split("x")
        for start, middle, end in _find_numbers(macro.layout, self.has_numbers and macro is self.parts["target"]):
            if start < middle:
                yield Change(start, middle, opening)
            yield Change(middle + 1, end, closing, "" if start < middle else opening)

    def _lead(self, name: str, form: Format) -> Iterator[Change]:
        """Yield what begins the answer as the separator ends, where the input ends with a field's name."""
        if form.separator is not None and name == self.answer and self._is_open:
            text = self.parts[name].layout.text
            yield Change(0, len(text) - len(text.lstrip()), form.separator[len(form.separator.rstrip()) :])

    def _change_fields(self, name: str, form: Format) -> Iterator[Change]:
        for match in self.fields[name]:
            start, end = match.span("space")
            if form.spacing is not None and match["space"] and self._is_break(name, match):
                yield Change(start, end, form.spacing)
            if form.casing is not None:
                for run in re.finditer(rf"[^{VALUE}{CALL}]+", match["name"]):
                    begin = match.start("name") + run.start()
                    yield Change(begin, begin + len(run[0]), CASINGS[form.casing](run[0]))
            if form.separator is not None:
                yield self._separate(name, match, form.separator)

    def _separate(self, name: str, match: re.Match[str], separator: str) -> Change:
        layout, (start, end) = self.parts[name].layout, match.span("sep")
        is_cut = layout.text[end - 1 : end + 1] == f":{BRANCH}" or layout.owner(start, end) is None
        if is_cut and layout.owners[start] is not None:
            raise TemplateError(
                f"{self.template.parts[name].place}: the name {match['name']!r} ends inside a condition and the white "
                "space behind its colon stands outside; put both inside for the separator to be varied"
            )
        return Change(start, end, separator if match["bare"] is None else separator.rstrip())

    def _is_break(self, name: str, match: re.Match[str]) -> bool:
        """Whether the white space before a field parts it from other text, and is not the last line end of a list."""
        layout, start = self.parts[name].layout, match.start("space")
        if start == 0:
            return name != "input"
        return layout.text[start - 1] != CALL and layout.owners[start] == layout.owners[match.start("name")]

    def _change_stop(self, stop: str, form: Format) -> str:
        """Return a stop text in the form of the text that it stands for: a field's name, or a next demonstration."""
        separator = self.template.separator
        between = separator if form.between is None else form.between
        rest = stop.removeprefix(separator)
        match = _STOP.fullmatch(rest)
        if match is None or match["name"] not in {each["name"] for fields in self.fields.values() for each in fields}:
            return between + rest if rest != stop else stop
        space = rest[: match.start("name")]
        if rest != stop or self._begins_input(match["name"]):
            space = between if rest != stop or form.between is not None else space
        elif form.spacing is not None and space:
            space = form.spacing
        name = CASINGS[form.casing](match["name"]) if form.casing else match["name"]
        sign = match["sep"]
        if form.separator is not None and sign:
            sign = form.separator.rstrip() if sign == sign.rstrip() else form.separator
        return space + name + sign

    def _begins_input(self, name: str) -> bool:
        fields = self.fields["input"]
        return bool(fields) and fields[0].start("name") == 0 and fields[0]["name"] == name

    def _check_answer(self, texts: dict[str, str], stop: tuple[str, ...], separator: str) -> None:
        """Refuse a form in which writing would end before the answer, or the answer would not be read."""
        template = self.template
        if not template.is_cot and template.answer is None:
            return
        own, other = (
            _fill("".join(each[name] for name in ("rationale", "target") if name in each))
            for each in ({name: macro.layout.text for name, macro in self.parts.items()}, texts)
        )
        stops = zip(template.stop or (template.separator,), stop or (separator,), strict=True)
        for before, after in stops:
            if after in other and before not in own:
                raise TemplateError(
                    f"template {template.name!r}: in this form the answer {other!r} holds {after!r}, before which "
                    "writing stops; choose a separator and a spacing without it"
                )
        if template.answer is not None and read_rule(own, template.answer) != read_rule(other, template.answer):
            raise TemplateError(
                f"template {template.name!r}: in this form `answer` {template.answer!r} no longer reads {other!r}; "
                "choose a separator, casing and spacing that it allows"
            )


def _find_bullets(layout: TextLayout) -> Iterator[tuple[int, int]]:
    """Yield the spans of the bullets in the loops of a layout."""
    for start, end in layout.loops:
        for match in _BULLET.finditer(layout.text[start:end]):
            yield start + match.start("bullet"), start + match.end("bullet")


def _find_numbers(layout: TextLayout, is_target: bool = False) -> Iterator[tuple[int, int, int]]:
    """Yield (start, position of the number, end) of the marks of lettered and numbered lists.

    In a target, that is what it begins with.
    """
    spans = [(start, _IN_LIST.finditer(layout.text[start:end])) for start, end in layout.loops]
    if is_target:
        spans.append((0, _IN_TARGET.finditer(layout.text)))
    for start, matches in spans:
        for match in matches:
            close = start + match.start("close")
            if layout.owners[close] in layout.attached:
                yield start + match.start("open"), close - 1, start + match.end("close")


def _fill(text: str) -> str:
    return text.replace(VALUE, "7").replace(CALL, "7")
