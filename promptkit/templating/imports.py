"""Parse a template file and all that it imports, and check them against each other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import jinja2
from jinja2 import meta, nodes

from promptkit.errors import TemplateError, nearest
from promptkit.storage.paths import display_path
from promptkit.templating.sandbox import parse


@dataclass(frozen=True)
class TemplateSource:
    """A file that a template is made of: where it was read, and what it said then."""

    path: Path
    text: str


Sources = dict[str, TemplateSource]
Trees = dict[str, nodes.Template]


def parse_all(environment: jinja2.Environment, file: str) -> tuple[Sources, Trees]:
    """Return the sources, `file` first, by their names, and the syntax trees of `file` and everything it imports.

    Raises TemplateError for what `parse` refuses, for imports in a circle, and for a name that is imported from a file
    that does not define it (the nearest one is suggested).
    """
    sources: Sources = {}
    trees: Trees = {}
    _parse_into(sources, trees, environment, file, ())
    names = {name: define_names(tree.body) for name, tree in trees.items()}
    for name, tree in trees.items():
        for line, imported, wanted in _find_uses(tree):
            if wanted not in names[imported]:
                raise TemplateError(
                    f"{display_path(sources[name].path)}:{line}: {imported} does not define {wanted!r} "
                    f"(it has: {', '.join(sorted(names[imported])) or 'nothing'}).{nearest(wanted, names[imported])}"
                )
    return sources, trees


def define_names(body: Iterable[nodes.Node]) -> dict[str, int]:
    """Return what a file's top level defines itself, macros and settings, and the line of each.

    What it imported is not passed on to other files, and what an `if` alone defines may be absent: `parse` refuses it.
    """
    names: dict[str, int] = {}
    for node in body:
        if isinstance(node, nodes.Macro):
            names[node.name] = node.lineno
        elif isinstance(node, nodes.Assign | nodes.AssignBlock):
            targets = node.target.items if isinstance(node.target, nodes.Tuple) else [node.target]
            names |= {target.name: node.lineno for target in targets if isinstance(target, nodes.Name)}
    return names


def _parse_into(
    sources: Sources, trees: Trees, environment: jinja2.Environment, file: str, importing: tuple[str, ...]
) -> None:
    text, path, tree = parse(environment, file)
    if file in importing:
        circle = " imports ".join((*importing[importing.index(file) :], file))
        raise TemplateError(f"{display_path(path)}: templates import each other in a circle: {circle}")
    sources[file], trees[file] = TemplateSource(path, text), tree
    for imported in meta.find_referenced_templates(tree):
        if imported is None:
            raise TemplateError(f"{display_path(path)}: imports must name their file as plain text")
        if imported not in sources or imported in (*importing, file):
            try:
                _parse_into(sources, trees, environment, imported, (*importing, file))
            except TemplateError as error:
                raise TemplateError(f"{display_path(path)} imports {imported!r}: {error}") from error


def _find_uses(tree: nodes.Template) -> list[tuple[int, str, str]]:
    """Return (line, file, name) for each name that is taken from another file, by `from`, or whole by a `set`."""
    uses = [
        (node.lineno, _file(node), name[0] if isinstance(name, tuple) else name)
        for node in tree.find_all(nodes.FromImport)
        for name in node.names
    ]
    modules = {node.target: _file(node) for node in tree.body if isinstance(node, nodes.Import)}
    for node in tree.body:
        taken = node.node if isinstance(node, nodes.Assign) else None
        if isinstance(taken, nodes.Getattr) and isinstance(taken.node, nodes.Name) and taken.node.name in modules:
            uses.append((taken.lineno, modules[taken.node.name], taken.attr))
    return uses


def _file(node: nodes.FromImport | nodes.Import) -> str:
    assert isinstance(node.template, nodes.Const)  # anything else was refused when it was parsed
    return str(node.template.value)
