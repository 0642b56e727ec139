"""Score prompts: the log-likelihood of every choice, free text where the answer is free."""

from promptkit.data.answers import read_answer, same_answer
from promptkit.scoring.predictions import Prediction, Sample, Table
from promptkit.scoring.scorer import score
from promptkit.scoring.scoring_request import find_faults, prompt_lengths

__all__ = ["Prediction", "Sample", "Table", "find_faults", "prompt_lengths", "read_answer", "same_answer", "score"]
