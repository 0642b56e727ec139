"""Compute metrics, intervals, tests and shares of variance from right and wrong answers (docs/statistics.md)."""

from promptkit.stats.intervals import (
    QUANTILES,
    RESAMPLES,
    Interval,
    Spread,
    bootstrap_interval,
    macro_f1_interval,
    paired_interval,
    quantiles,
    summarize,
    wilson_interval,
)
from promptkit.stats.paired import (
    CORRECTIONS,
    Comparison,
    McNemar,
    adjust_p_values,
    compare_conditions,
    gap_resolved,
    items_needed,
    mcnemar,
    paired_p_value,
)

__all__ = [
    "CORRECTIONS",
    "QUANTILES",
    "RESAMPLES",
    "Comparison",
    "Interval",
    "McNemar",
    "Spread",
    "adjust_p_values",
    "bootstrap_interval",
    "compare_conditions",
    "gap_resolved",
    "items_needed",
    "macro_f1_interval",
    "mcnemar",
    "paired_interval",
    "paired_p_value",
    "quantiles",
    "summarize",
    "wilson_interval",
]
