"""Check the keys and types of a run's files before a report reads them.

Beside what is named here a file may hold more. What has a default is not in every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from promptkit.errors import RunError

#: Finite, and so far from the largest number that sums and products of some stay finite too.
Number = Annotated[float, Field(ge=-1e100, le=1e100, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, le=1e100, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Pair = Annotated[list[Number], Field(min_length=2, max_length=2)]
OpenPair = Annotated[list[Number | None], Field(min_length=2, max_length=2)]
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


class MadeSchema(_Part):
    """What is read of run.json."""

    settings: _Settings
    versions: dict[str, str] = {}


class _Records(_Part):
    test: Count
    pool: Count


class _Cost(_Part):
    flops: Amount
    seconds: Amount


class _Spread(_Part):
    mean: Number
    std: Number
    min: Number
    max: Number
    ci95: Pair | None = None


class _Draw(_Part):
    seed: int | None = None
    order: int | str | None = None


class _Cell(_Part):
    method: str
    template: str
    k: Count | None
    n: Annotated[int, Field(ge=1)]
    accuracy: Share | None
    ci95: Pair | None
    cost: _Cost
    draw: _Draw | None = None
    macro_f1: Share | None = None


class _Reading(_Part):
    name: str
    accuracy: _Spread


class _Method(_Part):
    method: str
    template: str
    k: Count | None
    runs: Count
    accuracy: _Spread
    cost: _Cost
    train_cost: _Cost | None = None
    calibrations: list[_Reading] = []


class _BreakEven(_Part):
    items: int | None
    items_prefix_shared: int | None


class _Condition(_Part):
    method: str
    k: Count | None
    draw: _Draw | None = None


class _Paired(_Part):
    prompt: _Condition
    lora: _Condition
    difference: Number
    ci95: Pair
    p_value: Number
    prompt_only_right: int
    lora_only_right: int


class _Tokens(_Part):
    template: Amount
    demonstrations: Amount
    input: Amount
    label: Amount
    generated: Amount
    choices: Amount


class _TrainingTokens(_Part):
    template: Amount
    input: Amount
    completion: Amount
    validation: Amount


class _Training(_Part):
    tokens: _TrainingTokens
    flops: Amount


class _OwnHardware(_Part):
    per_1000: Amount
    training: Amount | None


class _ByTokens(_Part):
    recomputed: Amount
    shared: Amount
    training: Amount | None


class _Money(_Part):
    local: _OwnHardware | None = None
    tokens: _ByTokens | None = None

    @model_validator(mode="before")
    @classmethod
    def _has_no_null(cls, given: Any) -> Any:
        """Refuse a null where a key is left out: a key that is there has its prices."""
        if isinstance(given, dict) and None in given.values():
            raise ValueError("a price is null")
        return given


class _Spending(_Part):
    method: str
    template: str
    k: Count | None
    tokens_per_item: _Tokens
    training: _Training | None
    money: _Money | None = None


class _Tried(_Part):
    tried: Count
    flops: Amount
    seconds: Amount


class _Choosing(_Part):
    prompts: _Tried
    adapters: _Tried


class _Ledger(_Part):
    conditions: list[_Spending]
    choosing: _Choosing
    break_even_money: dict[str, dict[str, Count | None]]
    prices: dict[str, Any] | None
    assumptions: list[str] = []

    @model_validator(mode="after")
    def _are_priced(self) -> _Ledger:
        """Refuse a ledger that has prices for some conditions and none for others."""
        ways = [(row.money.local is None, row.money.tokens is None) if row.money else None for row in self.conditions]
        if len(set(ways)) > 1 or (self.prices and None in ways):
            raise ValueError("some conditions have prices that others have not")
        return self


class _Paid(_Part):
    per_1000_shared: Amount
    per_1000_recomputed: Amount


class _Point(_Part):
    rows: Count
    rows_hash: str | None
    runs: Count
    accuracy: _Spread
    accuracies: list[Share]
    failed: Count | None
    cost: _Paid


class _Line(_Part):
    name: str
    kind: Literal["trained", "retrieved", "shared", "zero-shot"]
    method: str
    template: str
    points: Annotated[Sequence[_Point], Field(min_length=1)]


class _Accuracies(_Part):
    lora: Share
    prompt: Share


class _Size(_Part):
    rows: Count
    prompt: dict[str, Any]
    accuracy: _Accuracies
    difference: Number
    ci95: Pair
    p_value: Share
    adjusted: Share
    ahead: Literal["lora", "prompt"] | None


class _Change(_Part):
    between: Annotated[list[Count], Field(min_length=2, max_length=2)]
    to: Literal["lora", "prompt"]


class _Leads(_Part):
    who: Literal["lora", "prompt"] | None
    rows: Number | None
    ci95: OpenPair


class _Crossing(_Part):
    against: Literal["prompting", "shared", "retrieved"]
    template: str
    sizes: Annotated[Sequence[_Size], Field(min_length=1)]
    changes: list[_Change]
    leads: _Leads


class _Curves(_Part):
    lines: Annotated[Sequence[_Line], Field(min_length=1)]
    crossings: list[_Crossing]


class ComparisonSchema(_Part):
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
    chance: Share | None = None
    majority: Share | None = None
    paired: _Paired | None = None
    ledger: _Ledger | None = None
    curves: _Curves | None = None


class _Lean(_Part):
    label: int | str | None
    predicted: Number
    ci95: Pair
    true: Number


class _Repeat(_Part):
    from_end: int | None
    rate: Number
    chance: Number
    excess: Number
    ci95: Pair


class _StudyCell(_Cell):
    factors: Factors


class _StudyMethod(_Method):
    factors: Factors
    spread: Number
    leans: list[_Lean] = []
    repeats: list[_Repeat] = []


class _Share(_Part):
    factor: str
    share: Number
    ci95: Pair
    between: Number | None


class _Level(_Part):
    value: str
    cells: int
    mean: Number
    min: Number
    max: Number


class _Row(_Part):
    factors: Factors
    lead: Number
    ci95: Pair
    p_value: Number
    adjusted: Number
    items_needed: int | None


class _Best(_Part):
    of: str
    best: Factors
    rows: list[_Row]


class _Ranks(_Part):
    first: str
    second: str
    conditions: int
    spearman: Number
    spearman_ci95: Pair
    kendall: Number
    kendall_ci95: Pair
    reversal: Number


class _Form(_Part):
    title: str
    header: list[str]
    kinds: list[str]
    rows: list[list[Any]]


class _Test(_Part):
    factors: Factors
    runs: Count
    n: Count
    accuracy: _Spread


class _End(_Part):
    mean: Number
    std: Number


class _Budget(_Part):
    calls: int
    full_calls: int
    spread: Number
    ci95: Pair
    best: _End
    worst: _End


class StudySchema(ComparisonSchema):
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
