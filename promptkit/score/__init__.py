"""Prompts into predictions: the log-likelihood of every choice, free text where the answer is free."""

from promptkit.score.answers import read_answer, same_answer
from promptkit.score.scorer import score
from promptkit.score.sheets import find_faults, prompt_lengths
from promptkit.score.table import Prediction, Sample, Table

__all__ = ["Prediction", "Sample", "Table", "find_faults", "prompt_lengths", "read_answer", "same_answer", "score"]
