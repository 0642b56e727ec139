"""Hold what a model said to a list of prompts."""

from __future__ import annotations

from dataclasses import dataclass

from promptkit.scoring.calibration import Likelihoods, read_scores
from promptkit.scoring.self_consistency import Votes, is_tied


@dataclass(frozen=True, slots=True)
class Sample:
    """One of several texts drawn after a prompt, what it answers, and the choices' log-likelihoods (nats) after it."""

    generated: str
    predicted: int | str | None
    logprobs: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model said to one prompt.

    `logprobs` are log-likelihoods in nats, one per choice, summed over the choice's tokens; empty for free text.
    `predicted` is the index of the most likely choice (the first of equals), or the text that was read from a
    free-text answer, None where it could not be read. `generated` is what the model wrote first, None where it
    did not have to. `spans` is true where a token crosses the join of the prompt and one of its choices.

    `choices` are those of the prompt. `first` (nats), `tokens` and `bytes` say of each what `Likelihoods` says;
    `content_free` and `domain` are the likelihoods of the same choices after the prompts of these names, where the
    prompt brought some.

    Where several texts were drawn, `samples` holds them, `votes` says how many answered what, most votes first,
    and `predicted` is the first of these; `logprobs` is empty and `generated` None, since each sample has its own.
    """

    id: str
    logprobs: tuple[float, ...]
    predicted: int | str | None
    label: int | str | None
    generated: str | None = None
    spans: bool = False
    first: tuple[float, ...] = ()
    tokens: tuple[int, ...] = ()
    bytes: tuple[int, ...] = ()
    content_free: tuple[Likelihoods, ...] = ()
    domain: tuple[Likelihoods, ...] = ()
    samples: tuple[Sample, ...] = ()
    votes: Votes = ()
    choices: tuple[str, ...] = ()

    @property
    def likelihoods(self) -> Likelihoods:
        """What every score of the choices is computed from."""
        return Likelihoods(self.logprobs, self.first, self.tokens, self.bytes)


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

    def scores(self, score: str = "sum", calibration: str = "none") -> tuple[tuple[float, ...], ...]:
        """Return per prompt and choice one score in nats, the higher the better; nothing is run for it.

        `score` is sum, token, byte, first or pmi, `calibration` none, contextual, domain or batch: any pair of
        them. Raises DataError for another name, and where a prompt came without the content-free prompts needed.
        """
        return read_scores(self.predictions, score, calibration)

    def choose(self, score: str = "sum", calibration: str = "none") -> tuple[int | str | None, ...]:
        """Return per prompt the index of the choice with the highest score, the first of equals.

        Free-text answers stay as they were read. Raises what `scores` raises.
        """
        return tuple(
            values.index(max(values)) if values else prediction.predicted
            for values, prediction in zip(self.scores(score, calibration), self.predictions, strict=True)
        )

    def split(self, parts: int) -> list[Table]:
        """Return so many tables, each of as many predictions in turn, with equal parts of what the whole took."""
        if parts == 1:
            return [self]
        size = len(self.predictions) // parts
        tables = []
        for part in range(parts):
            own = self.predictions[part * size : (part + 1) * size]
            counts = {name: _share(getattr(self, name), part, parts) for name in _SHARED}
            spanning = sum(prediction.spans for prediction in own)
            tables.append(Table(own, **counts, flops=self.flops / parts, spanning=spanning, notes=self.notes))
        return tables

    @property
    def ties(self) -> int:
        """How many votes were tied, and won by the answer that was given first."""
        return sum(is_tied(prediction.votes) for prediction in self.predictions)

    @property
    def unread(self) -> int:
        """How many answers could not be read."""
        return sum(prediction.predicted is None for prediction in self.predictions)


_SHARED = ("tokens_prompted", "tokens_computed", "tokens_unique", "tokens_generated", "unfinished")


def _share(total: int, part: int, parts: int) -> int:
    """Return part number `part` of a total; the parts add up to it."""
    return total * (part + 1) // parts - total * part // parts
