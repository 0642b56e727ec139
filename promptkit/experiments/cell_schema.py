"""Check what is read from a run's cells and measures: each kind has its keys, types and ranges.

Beside what is named here a cell may hold more. What has a default is not in every cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

#: Counts and sizes end where a float still tells them from the next one, so that every sum of them is a number.
Count = Annotated[int, Field(ge=0, le=2**53)]
Amount = Annotated[float, Field(ge=0, le=1e200, allow_inf_nan=False)]
Nats = Annotated[float, Field(ge=-1e200, le=1e200, allow_inf_nan=False)]
#: The index of a choice, a text, or nothing: no label, or an answer that could not be read.
Answer = Count | str | None


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", strict=True)


class _Sample(_Part):
    generated: str
    predicted: Answer
    logprobs: list[Nats]


class _Prediction(_Part):
    id: str
    label: Answer
    predicted: Answer
    logprobs: list[Nats]
    generated: str | None = None
    votes: list[Annotated[tuple[Count | str, Count], Field(strict=False)]] = []
    samples: list[_Sample] = []

    @model_validator(mode="after")
    def _are_choices(self) -> _Prediction:
        """Refuse the index of a choice that is not among those scored."""
        count = len(self.logprobs)
        if count and any(isinstance(each, int) and each >= count for each in (self.label, self.predicted)):
            raise ValueError(f"an answer is not one of the {count} choices")
        return self


class _Likelihoods(_Part):
    first: list[Nats]
    tokens: list[Annotated[int, Field(ge=1, le=2**53)]]
    bytes: list[Annotated[int, Field(ge=1, le=2**53)]]

    def lengths(self) -> set[int]:
        """Return the lengths of its lists: one number where they are of the same choices."""
        return {len(self.first), len(self.tokens), len(self.bytes)}


class _Row(_Likelihoods):
    set: Count


class _ContentFree(_Likelihoods):
    model_config = ConfigDict(extra="forbid")
    logprobs: list[Nats]


class _Set(_Part):
    model_config = ConfigDict(extra="forbid")
    content_free: list[_ContentFree]
    domain: list[_ContentFree]


class _Calibration(_Part):
    readings: list[Literal["sum", "token", "byte", "first", "pmi", "contextual", "domain", "batch"]]
    rows: list[_Row]
    content_free: list[_Set]


class Scored(_Part):
    """A scored cell."""

    predictions: Annotated[Sequence[_Prediction], Field(min_length=1)]
    tokens_prompted: Count
    tokens_computed: Count
    tokens_unique: Count
    tokens_generated: Count
    flops: Amount
    spanning: Count
    unfinished: Count
    dropped: Count
    notes: list[str]
    prompt_tokens: Amount
    query_tokens: Amount
    calibration: _Calibration | None = None

    @model_validator(mode="after")
    def _fit(self) -> Scored:
        """Refuse what is stored for calibrations where it is not that of these predictions."""
        if kept := self.calibration:
            if len(kept.rows) != len(self.predictions) or any(row.set >= len(kept.content_free) for row in kept.rows):
                raise ValueError("calibration does not fit the predictions")
            for row, prediction in zip(kept.rows, self.predictions, strict=True):
                others = kept.content_free[row.set]
                seen = [each for group in (others.content_free, others.domain) for each in group]
                lengths = row.lengths().union(*(each.lengths() | {len(each.logprobs)} for each in seen))
                if lengths != {len(prediction.logprobs)}:
                    raise ValueError("calibration does not fit the choices")
        return self


class Trained(_Part):
    """What a training computed."""

    rows: Annotated[int, Field(ge=1, le=2**53)]
    epochs: Annotated[int, Field(ge=1, le=2**53)]
    best_epoch: Count | None
    losses: list[Nats]
    validation: list[Nats]
    metric: str | None
    adapter_weights: Count
    tokens: Count
    flops: Amount


class _Order(_Part):
    order: Annotated[int, Field(ge=0)]  # of many demonstrations there are more orders than any float
    entropy: Nats


class Searched(_Part):
    """What an order search found, best order first by either measure."""

    by_global: Annotated[Sequence[_Order], Field(alias="global", min_length=1)]
    by_local: Annotated[Sequence[_Order], Field(alias="local", min_length=1)]
    queries: list[dict[str, JsonValue]]


class Measured(_Part):
    """What computing a cell took here."""

    model_config = ConfigDict(extra="forbid")
    seconds: Amount
    peak_memory_bytes: Count = 0


#: The kinds of cells that are no answers, by `part` in their specs.
PARTS: dict[str, type[_Part]] = {"training": Trained, "order search": Searched}


def check_result(spec: Mapping[str, Any], result: Mapping[str, Any], wanted: int | None) -> None:
    """Raise ValueError, with the place, where a cell's result is not of its kind.

    A scored cell has `wanted` predictions, any number where that is None.
    """
    if "part" in spec or "test" in spec:
        _check(PARTS.get(str(spec["part"]), _Part) if "part" in spec else Scored, result)
    if "part" not in spec and wanted is not None and len(result.get("predictions", ())) != wanted:
        raise ValueError(f"{len(result.get('predictions', ())):,} predictions, expected {wanted:,}")


def check_measure(measure: Mapping[str, Any]) -> None:
    """Raise ValueError, with the place, where this is not what computing a cell took."""
    _check(Measured, measure)


def _check(kind: type[_Part], content: Mapping[str, Any]) -> None:
    try:
        kind.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")) from error
