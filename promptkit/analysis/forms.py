"""Describe the tables of a paper: which axes make rows and columns, and which figures they show."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from promptkit.errors import nearest

#: What a cell is told apart by, beside a study's axes: the score or calibration, and the search that picked its order.
SCORE, ORDER_SEARCH = "score", "order-search"
#: Figures over the runs that fall together, and the kind of value each is.
FIGURES = {
    "mean": "percent",
    "mean ± std": "plus-minus",
    "std": "percent",
    "min": "percent",
    "median": "percent",
    "max": "percent",
    "spread": "percent",
    "runs": "count",
}
METRICS = ("accuracy", "macro_f1")


class Form(BaseModel):
    """One table, as a preset's `[[forms]]` describes it.

    `rows` and `columns` are axes of a study, or `score` or `order-search`: runs that agree on them fall together, and
    `figures` (of `FIGURES`) are told of each such group, in percent of `metric`. Runs are those of all orders asked for
    and of the plain score, unless `order-search` or `score` is named.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...] = ()
    figures: tuple[str, ...] = ("mean ± std",)
    metric: str = "accuracy"

    @field_validator("figures")
    @classmethod
    def _known_figures(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _known(names, tuple(FIGURES), "figure")

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, name: str) -> str:
        return _known((name,), METRICS, "metric")[0]

    @field_validator("rows", "columns")
    @classmethod
    def _known_axes(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        from promptkit.analysis.cells import AXES

        return _known(names, (*AXES, SCORE, ORDER_SEARCH), "axis")


def _known(names: tuple[str, ...], known: tuple[str, ...], what: str) -> tuple[str, ...]:
    for name in names:
        if name not in known:
            raise ValueError(f"unknown {what} {name!r}; known: {', '.join(known)}.{nearest(name, known)}")
    return names


#: What is shown of searched orders where no form says otherwise.
SEARCHED: dict[str, Any] = {
    "title": "Orders that a search picks without labels, against all orders asked for, accuracy in %",
    "rows": ("model", "template", "k", ORDER_SEARCH),
    "figures": ("mean ± std", "min", "max", "runs"),
}
