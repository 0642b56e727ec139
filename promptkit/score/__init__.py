"""Prompts into predictions: the log-likelihood of every choice, free text where the answer is free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from promptkit.score.answers import read_answer, same_answer
from promptkit.score.table import Prediction, Table

if TYPE_CHECKING:
    from promptkit.score.scorer import score
    from promptkit.score.sheets import prompt_lengths

__all__ = ["Prediction", "Table", "prompt_lengths", "read_answer", "same_answer", "score"]


def __getattr__(name: str) -> Any:  # what needs torch is loaded when it is first used
    if name == "score":
        from promptkit.score.scorer import score

        return score
    if name == "prompt_lengths":
        from promptkit.score.sheets import prompt_lengths

        return prompt_lengths
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
