"""Find the literal text of a macro, and put changes of that text back into its syntax tree.

What stands in a template file is told apart from what comes out of the data by the syntax tree, never by
looking at rendered text, so a change can reach no byte of the data.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from jinja2 import nodes

#: What stands in a layout for a value, for what another macro renders, and before a second branch of a condition.
#: Unicode has no such characters.
VALUE, CALL, BRANCH = "\ufdd0", "\ufdd1", "\ufdd2"


@dataclass(frozen=True)
class Literal:
    """A new text for one literal; `before` is put in front of the value that stands before it."""

    text: str
    before: str = ""


@dataclass
class TextLayout:
    """A macro's literal text from end to end.

    `owners` has, for each character of `text`, the number of the literal in its file that it belongs to; None
    for a value and for what is repeated to show on which line a branch begins. `loops` are the spans of loop
    bodies, and `attached` the literals that directly follow a value.
    """

    text: str = ""
    owners: list[int | None] = field(default_factory=list)
    loops: list[tuple[int, int]] = field(default_factory=list)
    attached: set[int] = field(default_factory=set)

    def owner(self, start: int, end: int) -> int | None:
        """Return the one literal that a span belongs to; None for an empty span and for any other."""
        owners = set(self.owners[start:end])
        return owners.pop() if len(owners) == 1 else None

    def add(self, text: str, owner: int | None = None) -> None:
        """Put text at the end."""
        self.text += text
        self.owners += [owner] * len(text)


@dataclass(frozen=True)
class Change:
    """New text for the span of a layout from `start` to `end`; `before` as in `Literal`."""

    start: int
    end: int
    text: str
    before: str = ""


def number_literals(tree: nodes.Node) -> list[nodes.TemplateData]:
    """Return the literals of a file in a fixed order; a literal's number is its place in it."""
    return list(tree.find_all(nodes.TemplateData))


def lay_out(macro: nodes.Macro, literals: Iterable[nodes.TemplateData]) -> TextLayout:
    """Return the layout of a macro out of the file that has these `literals`.

    The branches of a condition stand one after the other, each behind a copy of the line it begins on.
    """
    layout, numbers = TextLayout(), {id(literal): number for number, literal in enumerate(literals)}
    _lay_out_body(macro.body, layout, numbers)
    return layout


def _lay_out_body(body: Iterable[nodes.Node], layout: TextLayout, numbers: Mapping[int, int]) -> None:
    for node in body:
        if isinstance(node, nodes.Output):
            _lay_out_output(node, layout, numbers)
        elif isinstance(node, nodes.If):
            _lay_out_branches(_branches(node), layout, numbers)
        elif isinstance(node, nodes.For):
            start = len(layout.text)
            _lay_out_body(node.body, layout, numbers)
            layout.loops.append((start, len(layout.text)))
            if node.else_:
                layout.add(BRANCH + layout.text[:start].rpartition("\n")[2])
                _lay_out_body(node.else_, layout, numbers)
        elif isinstance(node, nodes.With | nodes.Scope):
            _lay_out_body(node.body, layout, numbers)
        elif isinstance(node, nodes.FilterBlock | nodes.CallBlock):
            layout.add(VALUE)


def _lay_out_output(output: nodes.Output, layout: TextLayout, numbers: Mapping[int, int]) -> None:
    for position, node in enumerate(output.nodes):
        if isinstance(node, nodes.TemplateData):
            layout.add(node.data, numbers[id(node)])
            if position and not isinstance(output.nodes[position - 1], nodes.TemplateData):
                layout.attached.add(numbers[id(node)])
        else:
            layout.add(CALL if isinstance(node, nodes.Call) else VALUE)


def _branches(node: nodes.If) -> list[Sequence[nodes.Node]]:
    bodies: list[Sequence[nodes.Node]] = [node.body, *(branch.body for branch in node.elif_), node.else_]
    return [body for body in bodies if body]


def _lay_out_branches(bodies: Iterable[Sequence[nodes.Node]], layout: TextLayout, numbers: Mapping[int, int]) -> None:
    line = layout.text.rpartition("\n")[2]
    for number, body in enumerate(bodies):
        if number:
            layout.add(BRANCH + line)
        _lay_out_body(body, layout, numbers)


def change_literals(layout: TextLayout, changes: Iterable[Change]) -> dict[int, Literal]:
    """Return the literals that `changes` alter, by number.

    Of changes that overlap the first counts. A change of characters that are not all literal text is left out.
    """
    kept = list(_keep_changes(layout, changes))
    altered = {owner for change in kept for owner in layout.owners[change.start : change.end] if owner is not None}
    texts, whole = _apply(layout, kept), dict.fromkeys(sorted(altered), "")
    for text, owner in zip(texts, layout.owners, strict=True):
        if owner in altered:
            whole[owner] += text
    before = {layout.owners[change.start]: change.before for change in kept if change.before}
    return {owner: Literal(text, before.get(owner, "")) for owner, text in whole.items()}


def change_text(layout: TextLayout, changes: Iterable[Change]) -> str:
    """Return the text of the layout after `changes`, values still in their places."""
    kept = list(_keep_changes(layout, changes))
    texts = _apply(layout, kept)
    for change in kept:
        if change.before:
            texts[change.start - 1] = change.before + texts[change.start - 1]
    return "".join(texts)


def _keep_changes(layout: TextLayout, changes: Iterable[Change]) -> Iterator[Change]:
    taken: set[int] = set()
    for change in changes:
        span = set(range(change.start, change.end))
        if span and not span & taken and None not in layout.owners[change.start : change.end]:
            taken |= span
            yield change


def _apply(layout: TextLayout, changes: Iterable[Change]) -> list[str]:
    """Return, for each character, what stands in its place."""
    texts = list(layout.text)
    for change in changes:
        texts[change.start : change.end] = [change.text, *[""] * (change.end - change.start - 1)]
    return texts


def write_literals(tree: nodes.Template, changed: Mapping[int, Literal]) -> None:
    """Put changed literals, by number, into the syntax tree of their file."""
    literals = number_literals(tree)
    outputs = list(tree.find_all(nodes.Output))
    for number, new in changed.items():
        literal = literals[number]
        literal.data = new.text
        if new.before:
            children = next(node.nodes for node in outputs if any(child is literal for child in node.nodes))
            position = next(index for index, child in enumerate(children) if child is literal)
            children.insert(position - 1, nodes.TemplateData(new.before, lineno=literal.lineno))


def find_called(macros: Collection[nodes.Macro], trees: Iterable[nodes.Template]) -> set[str]:
    """Return the names of the macros that `macros` call, directly or through each other, under their own names."""
    trees = list(trees)
    named = {macro.name: macro for tree in trees for macro in tree.find_all(nodes.Macro)}
    own = dict(alias for tree in trees for alias in _aliases(tree))
    found: set[str] = set()
    waiting = list(macros)
    while waiting:
        for call in waiting.pop().find_all(nodes.Call):
            name = getattr(call.node, "name", None) or getattr(call.node, "attr", None)
            called = own.get(str(name), str(name))
            if called in named and called not in found:
                found.add(called)
                waiting.append(named[called])
    return found


def _aliases(tree: nodes.Template) -> Iterator[tuple[str, str]]:
    for imported in tree.find_all(nodes.FromImport):
        for name in imported.names:
            if isinstance(name, tuple):
                yield name[1], name[0]
