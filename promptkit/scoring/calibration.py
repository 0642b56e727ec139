"""Turn log-likelihoods of choices into scores, and scores into calibrated ones.

What is added to or divided by what, and where each formula is from, is in docs/scoring.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from promptkit.errors import DataError, nearest

if TYPE_CHECKING:
    from promptkit.scoring.predictions import Prediction

Scores = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Likelihoods:
    """How likely a model finds each choice after one prompt; index for index the choices.

    `logprobs` are sums over a choice's tokens and `first` its first token's, in nats. `tokens` counts the
    tokens that were scored, `bytes` those of the choice's text in UTF-8.
    """

    logprobs: Scores
    first: Scores
    tokens: tuple[int, ...]
    bytes: tuple[int, ...]


def _per_token(seen: Likelihoods) -> Scores:
    return tuple(nats / tokens for nats, tokens in zip(seen.logprobs, seen.tokens, strict=True))


def _per_byte(seen: Likelihoods) -> Scores:
    return tuple(nats / size for nats, size in zip(seen.logprobs, seen.bytes, strict=True))


_OF_ONE_PROMPT: dict[str, Callable[[Likelihoods], Scores]] = {
    "sum": lambda seen: seen.logprobs,
    "token": _per_token,
    "byte": _per_byte,
    "first": lambda seen: seen.first,
}
#: Every score of a choice; `pmi` needs what the model says after a content-free prompt.
SCORES = (*_OF_ONE_PROMPT, "pmi")
#: Every calibration; `contextual` and `domain` need what the model says after content-free prompts.
CALIBRATIONS = ("none", "contextual", "domain", "batch")


def read_scores(predictions: Sequence[Prediction], score: str = "sum", calibration: str = "none") -> tuple[Scores, ...]:
    """Return per prompt and choice one score (nats), calibrated or not; the higher, the better.

    Raises DataError for an unknown name, where a prompt came without the content-free prompts that this needs,
    and for `batch` where prompts differ in their choices.
    """
    _check_name("score", score, SCORES)
    _check_name("calibration", calibration, CALIBRATIONS)
    scores = tuple(_score(each, each.likelihoods, score) for each in predictions)
    if calibration == "none":
        return scores
    if calibration == "batch":
        if len({each.choices for each in predictions if each.choices}) > 1:
            raise DataError("batch calibration needs the same choices in every prompt; they differ here")
        prior = batch_prior([each for each in scores if each])
        return tuple(calibrate(each, prior) if each else () for each in scores)
    priors: dict[object, Scores] = {}
    for each in predictions:
        key = each.content_free, each.domain
        if key not in priors:
            priors[key] = content_free_prior([_score(each, seen, score) for seen in _content_free(each, calibration)])
    return tuple(
        calibrate(own, priors[each.content_free, each.domain]) for each, own in zip(predictions, scores, strict=True)
    )


def calibrate(scores: Scores, prior: Scores) -> Scores:
    """Return log(W p): p the probabilities that scores give the choices, one in all, W = diag(prior)^-1.

    scores, prior: [choices], nats. This is q = W p + b with b = 0 of Zhao et al. 2021, "Calibrate before use",
    section 5, in nats and before its softmax, which changes no order.
    """
    return tuple(own - expected for own, expected in zip(_normalize(scores), prior, strict=True))


def content_free_prior(rows: Sequence[Scores]) -> Scores:
    """Return the log of the choices' mean probabilities after content-free prompts, made to sum to one.

    rows: [prompts][choices], nats, as the model gives them. Zhao et al. 2021 and Fei et al. 2023 both average
    first and normalise then: a prompt after which the choices are likely counts for more.
    """
    return _normalize(_log_mean(rows))


def batch_prior(rows: Sequence[Scores]) -> Scores:
    """Return the log of the mean over prompts of the probabilities that scores give the choices, one in all.

    rows: [prompts][choices], nats; their order has no say. Source: Zhou et al. 2023, "Batch calibration".
    Raises DataError where prompts differ in their number of choices.
    """
    if len({len(row) for row in rows}) > 1:
        raise DataError("batch calibration needs the same choices in every prompt; their numbers differ here")
    return _log_mean([_normalize(row) for row in rows])


def choice_probabilities(scores: Scores) -> Scores:
    """Return the probabilities, one in all, that scores in nats give the choices: their softmax."""
    return tuple(math.exp(nats) for nats in _normalize(scores))


def _score(prediction: Prediction, seen: Likelihoods, score: str) -> Scores:
    if not seen.logprobs:  # the answer is free text
        return ()
    if score != "pmi":
        return _OF_ONE_PROMPT[score](seen)
    domain = _content_free(prediction, "contextual")[-1]
    return tuple(nats - alone for nats, alone in zip(seen.logprobs, domain.logprobs, strict=True))


def _content_free(prediction: Prediction, calibration: str) -> tuple[Likelihoods, ...]:
    found = prediction.domain if calibration == "domain" else prediction.content_free
    if not found and prediction.logprobs:
        key = "domain" if calibration == "domain" else "content_free"
        raise DataError(f"prompt {prediction.id!r} was scored without content-free prompts; give it some as `{key}`")
    return found


def _normalize(scores: Scores) -> Scores:
    """Return log-probabilities that sum to one over the choices."""
    total = _log_sum(scores)
    return tuple(nats - total for nats in scores)


def _log_mean(rows: Sequence[Scores]) -> Scores:
    return tuple(_log_sum(column) - math.log(len(rows)) for column in zip(*rows, strict=True))


def _log_sum(values: Sequence[float]) -> float:
    """Return the log of the sum of exponentials, rounded once: the order of the values does not matter."""
    top = max(values, default=0.0)
    return top + math.log(math.fsum(math.exp(value - top) for value in values)) if values else 0.0


def _check_name(kind: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise DataError(f"unknown {kind} {name!r}; known: {', '.join(known)}.{nearest(name, known)}")
