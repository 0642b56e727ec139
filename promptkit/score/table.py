"""What a model said to a list of prompts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model said to one prompt.

    `logprobs` are log-likelihoods in nats, one per choice, summed over the choice's tokens; empty for free text.
    `predicted` is the index of the most likely choice (the first of equals), or the text that was read from a
    free-text answer, None where it could not be read. `generated` is what the model wrote first, None where it
    did not have to. `spans` is true where a token crosses the join of the prompt and one of its choices.
    """

    id: str
    logprobs: tuple[float, ...]
    predicted: int | str | None
    label: int | str | None
    generated: str | None = None
    spans: bool = False


@dataclass(frozen=True)
class Table:
    """Predictions in the order of their prompts, and what they took.

    `tokens_prompted` is what a tool that shares nothing would compute: every prompt with every choice at full
    length, and what was generated. `tokens_computed` is what was run through the model (no padding, no probe);
    `tokens_unique` is the least that could be. `spanning` counts prompts with a token across the join,
    `unfinished` those whose writing hit the token limit. `notes` say what a reader should know: a cache that
    could not be shared, and why.
    """

    predictions: tuple[Prediction, ...]
    tokens_prompted: int = 0
    tokens_computed: int = 0
    tokens_unique: int = 0
    tokens_generated: int = 0
    flops: float = 0.0
    spanning: int = 0
    unfinished: int = 0
    notes: tuple[str, ...] = ()

    @property
    def logprobs(self) -> tuple[tuple[float, ...], ...]:
        """Per prompt, per choice, nats."""
        return tuple(prediction.logprobs for prediction in self.predictions)

    @property
    def predicted(self) -> tuple[int | str | None, ...]:
        """Per prompt, the chosen index or the text read; None where nothing could be read."""
        return tuple(prediction.predicted for prediction in self.predictions)

    @property
    def unread(self) -> int:
        """How many answers could not be read."""
        return sum(prediction.predicted is None for prediction in self.predictions)
