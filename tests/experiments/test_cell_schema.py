"""What a run's cells and measures may hold, kind by kind."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from promptkit.experiments.cell_schema import check_measure, check_result

LIKELY = {"first": [-1.0, -2.0], "tokens": [1, 2], "bytes": [4, 5]}
SCORED = {
    "predictions": [{"id": "r", "label": 1, "predicted": 0, "logprobs": [-1.0, -2.0]}],
    **dict.fromkeys(("tokens_prompted", "tokens_computed", "tokens_unique", "tokens_generated"), 9),
    **dict.fromkeys(("spanning", "unfinished", "dropped"), 0),
    "flops": 1.5,
    "prompt_tokens": 9.0,
    "query_tokens": 3.0,
    "notes": [],
    "calibration": {
        "readings": ["sum", "contextual"],
        "rows": [{**LIKELY, "set": 0}],
        "content_free": [{"content_free": [{**LIKELY, "logprobs": [-1.0, -2.0]}], "domain": []}],
    },
}
TRAINED = {
    "rows": 4,
    "epochs": 2,
    "best_epoch": None,
    "losses": [2.5],
    "validation": [],
    "metric": None,
    "adapter_weights": 8,
    "tokens": 90,
    "flops": 1.5,
}
SEARCHED = {name: [{"order": 10**30, "entropy": 0.5}] for name in ("global", "local")} | {"queries": [{"text": "x"}]}
SCORED_SPEC, TRAINED_SPEC, SEARCHED_SPEC = {"test": "ab"}, {"part": "training"}, {"part": "order search"}


def test_what_a_run_writes_is_taken() -> None:
    """Each kind of cell is read as it was written, with keys that this version does not know."""
    check_result(SCORED_SPEC, SCORED, 1)
    check_result(SCORED_SPEC, {**SCORED, "new": 1}, None)
    check_result(TRAINED_SPEC, TRAINED, None)
    check_result(SEARCHED_SPEC, SEARCHED, None)
    check_measure({"seconds": 1, "peak_memory_bytes": 3})


@pytest.mark.parametrize(
    ("spec", "right", "place", "value"),
    [
        (SCORED_SPEC, SCORED, "tokens_prompted", "9"),
        (SCORED_SPEC, SCORED, "tokens_prompted", -1),
        (SCORED_SPEC, SCORED, "tokens_prompted", 10**30),
        (SCORED_SPEC, SCORED, "flops", True),
        (SCORED_SPEC, SCORED, "flops", 1e308),
        (SCORED_SPEC, SCORED, "notes", [1]),
        (SCORED_SPEC, SCORED, "predictions.0.logprobs", [None, -1.0]),
        (SCORED_SPEC, SCORED, "predictions.0.logprobs", [float("nan"), -1.0]),
        (SCORED_SPEC, SCORED, "predictions.0.logprobs", [-1.0, -2.0, -3.0]),
        (SCORED_SPEC, SCORED, "predictions.0.predicted", 2),
        (SCORED_SPEC, SCORED, "predictions.0.label", -1),
        (SCORED_SPEC, SCORED, "predictions.0.votes", [["x"]]),
        (SCORED_SPEC, SCORED, "predictions.0.samples", [{}]),
        (SCORED_SPEC, SCORED, "calibration.rows", []),
        (SCORED_SPEC, SCORED, "calibration.rows.0.set", 1),
        (SCORED_SPEC, SCORED, "calibration.rows.0.tokens", [0, 1]),
        (SCORED_SPEC, SCORED, "calibration.rows.0.tokens", [1]),
        (SCORED_SPEC, SCORED, "calibration.content_free.0.content_free.0.more", [1]),
        (SCORED_SPEC, SCORED, "calibration.content_free.0.content_free.0.bytes", [1]),
        (SCORED_SPEC, SCORED, "calibration.readings", ["no such"]),
        (TRAINED_SPEC, TRAINED, "rows", 0),
        (TRAINED_SPEC, TRAINED, "tokens", None),
        (TRAINED_SPEC, TRAINED, "losses", ["x"]),
        (SEARCHED_SPEC, SEARCHED, "global", []),
        (SEARCHED_SPEC, SEARCHED, "local.0.order", "given"),
    ],
)
def test_other_values_are_refused(spec: dict[str, Any], right: dict[str, Any], place: str, value: Any) -> None:
    """A count that is text, a log-likelihood that is null, lists that do not fit: all are a ValueError."""
    content: Any = copy.deepcopy(right)
    *inner, last = place.split(".")
    part = content
    for key in inner:
        part = part[int(key)] if key.isdecimal() else part[key]
    part[last] = value
    with pytest.raises(ValueError, match=f"{place.split('.')[0]}|calibration"):
        check_result(spec, content, None)


@pytest.mark.parametrize(
    "measure", [{"seconds": "1"}, {"seconds": -1.0}, {"seconds": None}, {}, {"seconds": 1.0, "hours": 1}]
)
def test_a_measure_holds_seconds_and_bytes(measure: dict[str, Any]) -> None:
    """What is added up as a cost is a number, not negative, and nothing else stands beside it."""
    with pytest.raises(ValueError, match=r"seconds|hours"):
        check_measure(measure)
