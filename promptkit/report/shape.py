"""What stands in a run's files into whether a report can read it: keys and types, as the run wrote them.

Beside what is named here a file may hold more. What has a default is not in every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from promptkit.errors import RunError

Pair = Annotated[list[float], Field(min_length=2, max_length=2)]
Factors = dict[str, str]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", strict=True)


class _Settings(_Part):
    task: str
    task_hash: str
    test: str
    pool: str
    seed: int
    split: str
    limit: int | None
    train_limit: int | None


class Made(_Part):
    """What is read of run.json."""

    settings: _Settings
    versions: dict[str, str] = {}


class _Records(_Part):
    test: int
    pool: int


class _Cost(_Part):
    flops: float
    seconds: float


class _Spread(_Part):
    mean: float
    std: float
    min: float
    max: float
    ci95: Pair | None = None


class _Draw(_Part):
    seed: int | None = None
    order: int | str | None = None


class _Cell(_Part):
    method: str
    template: str
    k: int | None
    n: Annotated[int, Field(ge=1)]
    accuracy: float | None
    ci95: Pair | None
    cost: _Cost
    draw: _Draw | None = None
    macro_f1: float | None = None


class _Reading(_Part):
    name: str
    accuracy: _Spread


class _Method(_Part):
    method: str
    template: str
    k: int | None
    runs: int
    accuracy: _Spread
    cost: _Cost
    train_cost: _Cost | None = None
    calibrations: list[_Reading] = []


class _BreakEven(_Part):
    items: int | None
    items_prefix_shared: int | None


class _Condition(_Part):
    method: str
    k: int | None
    draw: _Draw | None = None


class _Paired(_Part):
    prompt: _Condition
    lora: _Condition
    difference: float
    ci95: Pair
    p_value: float
    prompt_only_right: int
    lora_only_right: int


class _Ledger(_Part):
    conditions: list[dict[str, Any]]
    choosing: dict[str, Any]
    break_even_money: dict[str, dict[str, Any]]
    prices: dict[str, Any] | None


class _Curves(_Part):
    lines: list[dict[str, Any]]
    crossings: list[dict[str, Any]]


class Comparison(_Part):
    """What is read of compare.json."""

    task: str
    model: str
    records: _Records
    cells: Annotated[Sequence[_Cell], Field(min_length=1)]
    methods: Annotated[Sequence[_Method], Field(min_length=1)]
    break_even: dict[str, _BreakEven]
    notes: list[str]
    cautions: list[str] = []
    labels: list[str] | None = None
    chance: float | None = None
    majority: float | None = None
    paired: _Paired | None = None
    ledger: _Ledger | None = None
    curves: _Curves | None = None


class _Lean(_Part):
    label: int | str | None
    predicted: float
    ci95: Pair
    true: float


class _Repeat(_Part):
    from_end: int | None
    rate: float
    chance: float
    excess: float
    ci95: Pair


class _StudyCell(_Cell):
    factors: Factors


class _StudyMethod(_Method):
    factors: Factors
    spread: float
    leans: list[_Lean] = []
    repeats: list[_Repeat] = []


class _Share(_Part):
    factor: str
    share: float
    ci95: Pair
    between: float | None


class _Level(_Part):
    value: str
    cells: int
    mean: float
    min: float
    max: float


class _Row(_Part):
    factors: Factors
    lead: float
    ci95: Pair
    p_value: float
    adjusted: float
    items_needed: int | None


class _Best(_Part):
    of: str
    best: Factors
    rows: list[_Row]


class _Ranks(_Part):
    first: str
    second: str
    conditions: int
    spearman: float
    spearman_ci95: Pair
    kendall: float
    kendall_ci95: Pair
    reversal: float


class _Form(_Part):
    title: str
    header: list[str]
    kinds: list[str]
    rows: list[list[Any]]


class _Test(_Part):
    factors: Factors
    runs: int
    n: int
    accuracy: _Spread


class _End(_Part):
    mean: float
    std: float


class _Budget(_Part):
    calls: int
    full_calls: int
    spread: float
    ci95: Pair
    best: _End
    worst: _End


class Study(Comparison):
    """What is read of study.json."""

    models: list[str]
    preset: dict[str, str]
    axes: dict[str, list[str]]
    cells: Annotated[Sequence[_StudyCell], Field(min_length=1)]
    methods: Annotated[Sequence[_StudyMethod], Field(min_length=1)]
    levels: dict[str, list[_Level]]
    factors: list[_Share]
    verdict: list[str]
    best: _Best | None = None
    agreement: list[_Ranks] = []
    forms: list[_Form] = []
    away: list[_StudyCell] = []
    by_test: list[_Test] = []
    budget: _Budget | None = None


def check_shape(path: Path, content: Any, shape: type[BaseModel]) -> None:
    """Raise RunError, naming the file and the place in it, where the content has not this shape."""
    try:
        shape.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise RunError(
            f"{path}: {where}: {first['msg'].lower()}; give the same command again, which writes it anew"
        ) from error
