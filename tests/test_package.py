"""The package as a whole: light to import, its public names, its layout in the README."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import promptkit

HEAVY = {"torch", "transformers", "datasets", "peft", "sklearn", "scipy", "matplotlib", "numpy"}
ROOT = Path(__file__).parents[1]


def run(code: str) -> str:
    """Run code in a fresh interpreter and return what it printed."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    "code",
    [
        "import promptkit",
        "import promptkit.cli",
        "import promptkit as pk; pk.load_task('sst2'); pk.load_template('sentiment/plain').bind(pk.load_task('sst2'))",
        "from click.testing import CliRunner; from promptkit.cli import cli; CliRunner().invoke(cli, ['--help'])",
        "from click.testing import CliRunner; from promptkit.cli import cli; CliRunner().invoke(cli, ['lint'])",
        "import promptkit.experiments.compare, promptkit.experiments.evaluate, promptkit.cli.verbs.building",
    ],
)
def test_light_things_load_nothing_heavy(code: str) -> None:
    """Importing, asking for help, linting and loading files need none of the heavy libraries."""
    loaded = run(f"{code}\nimport sys; print(*sorted({HEAVY!r} & set(sys.modules)))")
    assert loaded.strip() == ""


def test_every_imported_package_is_a_dependency() -> None:
    """What the package imports is asked for by name in pyproject.toml, not had by way of another package."""
    import ast
    import re
    import tomllib
    from importlib.metadata import packages_distributions

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for name, lines in project["optional-dependencies"].items() if name != "dev" for line in lines]
    asked = {re.split(r"[^\w-]", line)[0].lower() for line in [*project["dependencies"], *extras]}
    imported: set[str] = set()
    for path in (ROOT / "promptkit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.split(".")[0])
    imported -= {*sys.stdlib_module_names, "promptkit", "pandas"}  # pandas: in annotations alone
    owners = packages_distributions()
    missing = {name for name in imported if not {each.lower() for each in owners.get(name, [name])} & asked}
    assert {name.replace("_", "-") for name in missing} <= asked


def test_every_public_name_loads() -> None:
    """Each name of `__all__` can be had, is listed once, and an unknown one is an AttributeError."""
    assert list(promptkit.__all__) == sorted(set(promptkit.__all__))
    for name in promptkit.__all__:
        assert callable(getattr(promptkit, name))
    assert set(promptkit.__all__) <= set(dir(promptkit))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = promptkit.nothing  # type: ignore[attr-defined]


def test_every_public_thing_has_a_docstring() -> None:
    """Modules, public functions and public classes say what they are."""
    import ast

    for path in (ROOT / "promptkit").rglob("*.py"):
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path}: {node.name}"
