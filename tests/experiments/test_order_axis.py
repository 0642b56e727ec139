"""Order search as values of a study's axis: which orders are picked, what is kept, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from promptkit.errors import SelectionError
from promptkit.experiments.order_axis import CANDIDATES, OrderSearch, Wanted, list_candidates, parse_search
from promptkit.experiments.run_folder import Run
from promptkit.experiments.study import study
from promptkit.models import Model
from promptkit.scoring import score
from promptkit.scoring.order_search import ProbingWriter
from tests.conftest import own_scorer
from tests.experiments.test_compare import bytes_of, small

__all__ = ["small"]  # a fixture

GRID: dict[str, Any] = {"limit": 4, "shots": (3,), "draws": 2, "data": "data"}


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries of four tokens: what a random model writes is no better when it is longer."""
    monkeypatch.setattr("promptkit.experiments.order_axis.ProbingWriter", partial(ProbingWriter, max_tokens=4))


def searches(folder: str) -> list[dict[str, Any]]:
    """Return the searches that a run folder keeps."""
    cells = [cell for cell in Run(Path(folder)).cells() if cell.spec.get("part") == "order search"]
    return [{**cell.result, "draw": cell.spec["draw"]} for cell in cells]


def test_names_say_how_many_are_kept() -> None:
    """`globale` keeps the best order, `locale:4` the best four, and other names are none of a search."""
    assert parse_search("globale") == Wanted("globale", 1)
    assert str(parse_search("locale:4")) == "locale:4"
    assert parse_search("reversed") is None
    with pytest.raises(SelectionError, match=r"order search 'locale:x': behind the colon stands how many"):
        parse_search("locale:x")


def test_candidates_are_all_orders_or_as_many_as_the_paper_tries() -> None:
    """Up to four demonstrations every permutation is tried; of more, 24 drawn by the seed."""
    assert list_candidates(4, 0) == tuple(range(24))
    assert len(set(list_candidates(6, 0))) == CANDIDATES
    assert list_candidates(6, 0) != list_candidates(6, 1)


def test_picked_orders_are_cells_of_their_own_number(small: Model) -> None:
    """Cells are those of the best orders of each search, in which an order that is asked for anyway stands once."""
    result = study("films", model=small.name, out="run", orders=("all", "globale:2", "locale"), **GRID)
    assert len(result["cells"]) == 2 * 6
    for found in searches("run"):
        own = [cell for cell in result["cells"] if cell["factors"]["draw"] == str(found["draw"]["seed"])]
        picked = {
            name: {cell["factors"]["order"] for cell in own if name in cell.get("picked", ())}
            for name in ("globale:2", "locale")
        }
        assert picked["globale:2"] == {str(each["order"]) for each in found["global"][:2]}
        assert picked["locale"] == {str(found["local"][0]["order"])}
    (form,) = result["forms"]
    assert form["header"][0] == "order-search"
    assert [(row[0], row[-1]) for row in form["rows"]] == [("all", 12), ("globale:2", 4), ("locale", 2)]


def test_cells_without_a_search_stay_as_they_are(small: Model) -> None:
    """A search beside other orders adds cells and changes none."""
    study("films", model=small.name, out="plain", orders=("all",), **GRID)
    study("films", model=small.name, out="run", orders=("all", "locale"), **GRID)
    plain, searched = bytes_of("plain"), bytes_of("run")
    assert {**plain, "run.json": b""}.items() <= {**searched, "run.json": b""}.items()


def test_a_search_is_made_once(small: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found is kept in the run folder: the same command neither writes queries nor asks again."""
    first = study("films", model=small.name, out="run", orders=("locale",), **GRID)

    @own_scorer
    def never(*args: Any, **options: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(OrderSearch, "_search", never)
    assert study("films", model=small.name, out="run", orders=("locale",), scorer=never, **GRID) == first


def test_a_search_does_not_depend_on_the_queries(small: Model) -> None:
    """Other test records leave the orders that are picked as they are."""
    study("films", model=small.name, out="four", orders=("globale",), **GRID)
    study("films", model=small.name, out="two", orders=("globale",), **{**GRID, "limit": 2})
    assert [found["global"] for found in searches("four")] == [found["global"] for found in searches("two")]


def test_a_search_says_how_far_it_is(small: Model) -> None:
    """Each is a piece of work of its own, told from its first text to its last score."""
    told: dict[str, list[tuple[int, int]]] = {}

    def track(name: str) -> Callable[[int, int], None]:
        steps = told.setdefault(name, [])
        return lambda done, total: steps.append((done, total))

    study("films", model=small.name, orders=("locale",), track=track, **GRID)
    searches_told = {name: steps for name, steps in told.items() if name.startswith("order search")}
    assert list(searches_told) == ["order search k=3 draw 0", "order search k=3 draw 1"]
    for steps in searches_told.values():
        assert steps == sorted(steps)
        assert (steps[0], steps[-1]) == ((0, 12), (12, 12))


def test_a_dry_run_searches_nothing(small: Model) -> None:
    """Cells are counted with as many orders as a search keeps, and nothing is written."""
    found = study("films", model=small.name, orders=("globale:2",), dry_run=True, **GRID)
    assert found["cells"] == 2 * 2
    assert not searches(found["run"])


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        ("films", {"selections": ("bm25",), "data": "data"}, "needs demonstrations that all queries share"),
        ("word-problems", {"methods": ("few-shot-cot",), "templates": ("cot",)}, "lets the model reason first"),
    ],
)
def test_searches_that_cannot_work(small: Model, task: str, settings: dict[str, Any], message: str) -> None:
    """What is ruled out is said in a line, before any text is written."""
    with pytest.raises(SelectionError, match=message):
        study(task, model=small.name, orders=("globale",), shots=(2,), limit=2, scorer=score, **settings)
