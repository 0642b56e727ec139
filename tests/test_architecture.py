"""The structure of the package: packages in the order of the flow, each importing from those above it alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "promptkit"
#: What the packages may import, too; nothing else stands beside them.
BELOW = ("_version", "errors")
ABOVE = ("__init__", "__main__")


def flow() -> list[str]:
    """Return the packages in the order in which the page on the architecture lists them."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    return re.findall(r"^### `(\w+)/`", page, re.MULTILINE)


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the package or module that each import of a file leads to, also inside functions and for types alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{name}" for name in names]
        for name in names:
            if name.split(".")[0] == "promptkit":
                yield [*name.split("."), "__init__"][1], node.lineno


def test_packages_import_from_those_above_them_alone() -> None:
    """No import leads down the flow, so there is no circle between packages."""
    order = [*BELOW, *flow(), *ABOVE]
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        place = order.index(path.relative_to(PACKAGE).with_suffix("").parts[0])
        wrong += [f"{path}:{line} {to}" for to, line in imports(path) if order.index(to) > place]
    assert wrong == []


def test_the_page_names_every_package_and_no_other() -> None:
    """docs/architecture.md has one section for each folder, and there are at most 25 entries at the top."""
    entries = [path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert sorted(flow()) == sorted(name for name in entries if (PACKAGE / name).is_dir())
    assert len(entries) <= 25


def test_tests_mirror_the_packages() -> None:
    """Every folder of tests is a package's, but for what tests share and what is run by hand."""
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders - set(flow()) == {"benchmarks", "golden", "helpers"}


def test_a_name_stands_for_one_thing() -> None:
    """No two public classes, and no two modules of different packages, have the same name."""
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        classes = [
            node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)
        ]
        for name in (path.name, *(name for name in classes if not name.startswith("_"))):
            found.setdefault(name, []).append(str(path))
    shared = {name: paths for name, paths in found.items() if len(paths) > 1}
    assert shared.keys() == {"__init__.py", "__main__.py"}


#: What there is too much of; these counts may only fall.
MOST = {"functions over 60 lines": 6, "functions over 6 parameters": 29, "untyped mappings": 392}


def test_what_there_is_too_much_of_grows_no_more() -> None:
    """Long functions, long lists of parameters, and mappings whose keys no type names."""
    found = dict.fromkeys(MOST, 0)
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        found["untyped mappings"] += len(re.findall(r"(dict|Mapping)\[str, Any\]", text))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                names = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                found["functions over 60 lines"] += (node.end_lineno or 0) - node.lineno >= 60
                found["functions over 6 parameters"] += len([name for name in names if name not in ("self", "cls")]) > 6
    assert {name: count for name, count in found.items() if count > MOST[name]} == {}
