"""Estimate the posterior of every condition's mean over all items from the answers seen so far.

Both models of the grid say: answer = level of the condition in the item's stratum + difficulty of the item + noise.
"""

from __future__ import annotations

from typing import Any

#: What is known before any item was asked: as if one answer of average difficulty had been seen for it.
PRIOR_ANSWERS = 1.0
#: The noise of one condition is drawn to that of all of them, as if seen on this many items more.
PRIOR_NOISE = 20.0
#: Of what draws add to the distance between the extremes, the part that is believed: half where errors could be
#: shared or not, less where margins tell most of them apart (measured, see docs/statistics.md).
HIDDEN_BY_SCORES, HIDDEN_BY_MARGINS = 0.5, 0.25


class Scores:
    """What scores alone tell. `member` is items x strata: 1 where an item is of the stratum."""

    hidden = HIDDEN_BY_SCORES

    def __init__(self, conditions: int, member: Any) -> None:
        import numpy

        self.member = member
        self.levels, self.difficulty = numpy.zeros((conditions, member.shape[1])), numpy.zeros(len(member))

    def update(self, seen: Any, scores: Any, margins: Any, sweeps: int = 1) -> tuple[Any, Any]:
        """Return mean and standard deviation of every condition's mean over all items.

        `seen` is conditions x items, 1 where `scores` is known. Levels and difficulties are fitted by alternating least
        squares that goes on from the last fit. Means are drawn to each other as far as their errors demand.
        """
        import numpy

        asked, size, calls = seen.sum(axis=1), seen.shape[1], seen.sum()
        per_stratum = seen @ self.member
        for _ in range(sweeps):
            rest = seen * (scores - self.difficulty)
            overall = rest.sum(axis=1, keepdims=True) / asked[:, None]
            self.levels = (rest @ self.member + PRIOR_ANSWERS * overall) / (per_stratum + PRIOR_ANSWERS)
            rest = seen * (scores - self.levels @ self.member.T)
            self.difficulty = rest.sum(axis=0) / (seen.sum(axis=0) + PRIOR_ANSWERS)
        expected = self.levels @ self.member.T + self.difficulty
        squares = (seen * (scores - expected) ** 2).sum(axis=1)
        fitted = (per_stratum > 0).sum() + (seen.sum(axis=0) > 0).sum() - self.member.shape[1]
        squares = squares + 0.25 / len(squares)  # one coin toss, so that equal answers are not certainty
        pooled = squares.sum() / max(calls - fitted, 1)
        noise = pooled * (squares + PRIOR_NOISE * pooled) / (asked * squares.sum() / calls + PRIOR_NOISE * pooled)
        means = (seen * scores + (1 - seen) * expected).mean(axis=1)
        variances = noise * (1 / asked - 1 / size)
        prior_mean, prior_variance = _fit_prior(means, variances)
        prior_variance = max(prior_variance, float(noise.mean()) / size)  # equal conditions differ on these items too
        weight = prior_variance / (prior_variance + variances)
        return prior_mean + weight * (means - prior_mean), numpy.sqrt(weight * variances)


class Margins:
    """What scores of 0 and 1 tell together with their margins: by how far an answer is right (above 0) or wrong.

    Margins are modelled in place of scores, each condition with a slope of its own on the difficulties; the sizes of
    all effects are fitted along (mixed model, expectation and maximization). An item that was not asked counts with
    the probability that its margin is above 0. Source of the idea, there with scores alone: Polo et al. 2024,
    "Efficient multi-prompt evaluation of LLMs".
    """

    hidden = HIDDEN_BY_MARGINS

    def __init__(self, conditions: int, member: Any) -> None:
        import numpy

        self.member = member
        self.levels, self.difficulty = numpy.zeros((conditions, member.shape[1])), numpy.zeros(len(member))
        self.slopes = numpy.ones((conditions, 1))
        self.noise = self.of_items = self.of_levels = 0.0  # variances; 0 until margins have been seen
        self.of_slopes = 0.05

    def update(self, seen: Any, scores: Any, margins: Any, sweeps: int = 1) -> tuple[Any, Any]:
        """Return mean and standard deviation of every condition's mean over all items."""
        import numpy
        from scipy.stats import norm

        if not self.noise:
            variance = max(float(margins[seen > 0].var()), 1e-6)
            self.noise = self.of_levels = variance / 4
            self.of_items = variance
        for _ in range(max(sweeps, 3)):
            expected, level_errors, item_errors = self._fit(seen, margins)
        asked, size = seen.sum(axis=1), seen.shape[1]
        squares = (seen * (margins - expected) ** 2).sum(axis=1)
        own = squares * self.noise * asked.sum() / max(float(squares.sum()), 1e-9)
        noise = ((own + PRIOR_NOISE * self.noise) / (asked + PRIOR_NOISE))[:, None]
        scale = numpy.sqrt(noise + self.slopes**2 * item_errors)
        right = norm.cdf(expected / numpy.sqrt(scale**2 + level_errors @ self.member.T))
        likely = norm.cdf(expected / scale)
        unseen = 1 - seen
        wrong = (seen * (scores - likely)).sum(axis=1) / asked  # how far probabilities are off, per condition
        luck = (seen * right * (1 - right)).sum(axis=1) / asked**2
        astray = max(0.0, float((wrong**2 - luck).mean()))
        share, weight = unseen.sum(axis=1) / size, astray / (astray + luck + 1e-12)
        means = (seen * scores + unseen * right).mean(axis=1) + share * weight * wrong
        steepness = (unseen * norm.pdf(expected / scale) / scale) @ self.member / size
        variances = (steepness**2 * level_errors).sum(axis=1)
        variances += (unseen * likely * (1 - likely)).sum(axis=1) / size**2 + share**2 * (1 - weight) * astray
        variances += share**2 * 0.25 / (asked * asked.sum())  # one coin toss, so that equal answers are not certainty
        return means, numpy.sqrt(variances)

    def _fit(self, seen: Any, margins: Any) -> tuple[Any, Any, Any]:
        """Go one step on; return expected margins and the variances of levels and difficulties."""
        import numpy

        per_stratum = seen @ self.member
        raw = (seen * (margins - self.slopes * self.difficulty)) @ self.member
        centre = raw.sum(axis=0) / numpy.maximum(per_stratum.sum(axis=0), 1)
        drawn = self.noise / self.of_levels
        self.levels = (raw + drawn * centre) / (per_stratum + drawn)
        level_errors = self.noise / (per_stratum + drawn)
        rest = seen * (margins - self.levels @ self.member.T)
        weights, drawn = (self.slopes**2 * seen).sum(axis=0), self.noise / self.of_items
        if self.difficulty.any():
            steady = self.noise / self.of_slopes
            sizes = (seen * (self.difficulty**2 + self.noise / (weights + drawn))).sum(axis=1)
            slopes = ((rest * self.difficulty).sum(axis=1) + steady) / (sizes + steady)
            self.slopes = (slopes / max(float(slopes.mean()), 0.1))[:, None]
            self.of_slopes = max(float(((self.slopes - 1) ** 2).mean()), 1e-3)
            weights = (self.slopes**2 * seen).sum(axis=0)
        self.difficulty = (self.slopes * rest).sum(axis=0) / (weights + drawn)
        item_errors = self.noise / (weights + drawn)
        expected = self.levels @ self.member.T + self.slopes * self.difficulty
        left = (seen * ((margins - expected) ** 2 + item_errors + level_errors @ self.member.T)).sum()
        self.noise = max(float(left / seen.sum()), 1e-6)
        self.of_items = max(float((self.difficulty**2 + item_errors).mean()), 1e-6)
        self.of_levels = max(float(((self.levels - centre) ** 2 + level_errors).mean()), 1e-6)
        return expected, level_errors, item_errors


def _fit_prior(means: Any, variances: Any) -> tuple[float, float]:
    """Return mean and variance of the conditions' true means: Paule and Mandel 1982, by bisection.

    Not their middle value of the variance but one that is too small with 20 % only: taking conditions for more
    alike than they are would hide the spread.
    """
    import numpy
    from scipy.stats import chi2

    target = chi2.ppf(0.2, len(means) - 1)

    low, high = 0.0, float(numpy.var(means, ddof=1)) + 1e-12
    for _ in range(40):
        middle = (low + high) / 2
        weights = 1 / (middle + variances + 1e-12)
        centre = (weights * means).sum() / weights.sum()
        too_small = (weights * (means - centre) ** 2).sum() > target
        low, high = (middle, high) if too_small else (low, middle)
    return float(centre), high
