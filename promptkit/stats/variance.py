"""Decompose the variance of a grid of scores into the shares of its factors, the items and chance.

The model, the estimator and its limits are in docs/statistics.md.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from promptkit.errors import StudyError
from promptkit.stats.intervals import Interval

DRAWS = 4000
_ROUNDING = 1e-12  # of the largest score: differences of means below are none
#: How the factors of a study are called in sentences; any other name stands as it is.
WORDS = {
    "choice": "choice of demonstrations",
    "draw": "choice of demonstrations",
    "k": "number of demonstrations",
    "interactions": "interactions of factors",
    "order": "order of demonstrations",
}
INTERACTIONS, ITEMS, RESIDUAL = "interactions", "items", "residual"


@dataclass(frozen=True, slots=True)
class VariancePart:
    """One source of variance.

    `variance` is in squared score units, and `share` its part of the variance of one answer. `between`
    is its part of the variance between cells, that is of how far accuracy moves; None for what does not
    differ between cells (items, residual). Shares are 0 to 1; the intervals belong to the shares.
    """

    name: str
    variance: float
    share: float
    interval: Interval
    between: float | None = None
    between_interval: Interval | None = None


@dataclass(frozen=True, slots=True)
class Decomposition:
    """Where the variance of a grid's scores comes from; the parts' variances sum to `total`.

    `parts` are the factors as given, the interactions of factors (where the grid can tell), the items and
    the residual: which items are right changes with the cell. `between_std` is the standard deviation of the
    cells' accuracy over other items, in score units, with the luck of these items taken out. `balanced` is
    false where not every level meets every other equally often: then the intervals are approximate, and the
    shares depend a little on the order of the factors. `confidence` is the level of the intervals. `first_in`
    is the share of the draws behind the intervals in which the part that is largest between cells is largest.
    `p_value` is that of the hypothesis that all cells are equally accurate.
    """

    parts: tuple[VariancePart, ...]
    total: float
    between_std: float
    cells: int
    items: int
    balanced: bool
    confidence: float
    first_in: float
    p_value: float

    def part(self, name: str) -> VariancePart:
        """Return the part of that name. Raises KeyError where there is none."""
        return {part.name: part for part in self.parts}[name]


def decompose_variance(
    scores: Any,
    factors: Mapping[str, Sequence[Hashable]],
    *,
    nested: Mapping[str, str] | None = None,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Decomposition:
    """Return the share of variance that each factor, the items and chance explain.

    `scores` is cells x items, 0 or 1 (or any real score), every cell on the same items. `factors` names for
    each factor its level in every cell. `nested` says inner -> outer: orders are nested in choices where order
    3 of one choice has nothing to do with order 3 of another. All other factors are crossed. A factor with one
    level is left out: it explains nothing here.

    Estimator: ANOVA method of moments for random effects, with factors, their pairwise interactions, the
    items and the interaction of each of these with the items. Sums of squares are sequential (Henderson's
    method III), so the estimates are unbiased in an unbalanced grid too, before those below 0 are set to 0.
    Intervals are generalized confidence intervals: mean squares of factors over chi-squared draws, of items by
    a bootstrap over items. A bootstrap over levels would fail with the five or ten levels that studies have.

    Sources: Searle, Casella and McCulloch 1992, "Variance components", ch. 4 and 5; Weerahandi 1995, "Exact
    statistical methods for data analysis", ch. 9; Brennan 2001, "Generalizability theory" (items x conditions).

    Raises StudyError for factors that do not fit the scores or each other, and for fewer than two cells or items.
    """
    import numpy

    table = _check_scores(scores)
    cells, items = table.shape
    nested = dict(nested or {})
    codes = _number_levels(factors, nested, cells)
    terms = _find_terms(codes, nested, cells)
    freedom = numpy.array([term.freedom for term in terms])
    means = table.mean(axis=1, keepdims=True)
    squares = numpy.array([part.sum() for part in _split(terms, means)]) / freedom
    per_item = numpy.stack([part.sum(axis=0) for part in _split(terms, table - means)])
    per_item = per_item / (freedom[:, None] * (items - 1))  # summed over items: the terms' mean squares with items
    for found in (squares, per_item):  # or what rounding left would have shares
        found[found < (_ROUNDING * abs(table).max()) ** 2] = 0.0
    overall = (table - means).mean(axis=0) ** 2 * cells / (items - 1)  # summed over items: the mean square of items

    random = numpy.random.default_rng(seed)
    counts = random.multinomial(items, [1 / items] * items, size=draws)
    pivots = squares * freedom / random.chisquare(freedom, size=(draws, len(terms)))
    names = [*codes, *([INTERACTIONS] if any(term.owner == INTERACTIONS for term in terms) else [])]
    found = _solve(terms, names, squares[None], per_item.sum(axis=1)[None], overall.sum(keepdims=True), items)[0]
    drawn = _solve(terms, names, pivots, counts @ per_item.T, counts @ overall, items)
    return Decomposition(
        parts=_assemble(names, found, drawn, level),
        total=float(found.sum()),
        between_std=float(found[: len(names)].sum() ** 0.5),
        cells=cells,
        items=items,
        balanced=_is_balanced(list(codes.values())),
        confidence=level,
        first_in=float((drawn[:, : len(names)].argmax(axis=1) == found[: len(names)].argmax()).mean()),
        p_value=_test_equal_cells(table),
    )


def _test_equal_cells(table: Any) -> float:
    """Return the p-value that all rows have one mean: repeated measures, with items as the subjects.

    Source: Geisser and Greenhouse 1958, "An extension of Box's results on the use of the F distribution".
    """
    from scipy.stats import f

    cells, items = table.shape
    contrasts = table - table.mean(axis=0)
    effect = contrasts.mean(axis=1, keepdims=True)
    noise = contrasts - effect
    error = (noise**2).sum() / (items - 1)
    if not error:
        return 0.0 if effect.any() else 1.0
    small = noise.T @ noise if items < cells else noise @ noise.T
    freedom = error**2 / ((small / (items - 1)) ** 2).sum()
    return float(f.sf(items * (effect**2).sum() / error, freedom, freedom * (items - 1)))


def _check_scores(scores: Any) -> Any:
    import numpy

    table = numpy.asarray(scores, dtype=float)
    if table.ndim != 2 or min(table.shape) < 2:
        raise StudyError(f"scores of shape {table.shape} were given; variance needs cells x items, two or more of both")
    if not numpy.isfinite(table).all():
        raise StudyError("the scores hold values that are not numbers; every cell must be scored on the same items")
    return table


def _number_levels(factors: Mapping[str, Sequence[Hashable]], nested: Mapping[str, str], cells: int) -> dict[str, Any]:
    """Return per factor that varies its level's number in every cell; a nested level is another one per outer level."""
    for name, values in factors.items():
        if len(values) != cells:
            raise StudyError(f"factor {name!r} has {len(values)} levels for {cells} cells; give one per cell")
        if name in (INTERACTIONS, ITEMS, RESIDUAL):
            raise StudyError(f"a factor cannot be called {name!r}: a part of the result has that name; rename it")
    for inner, outer in nested.items():
        missing = [name for name in (inner, outer) if name not in factors]
        if missing:
            known = ", ".join(factors)
            raise StudyError(f"{inner!r} is nested in {outer!r}, but there is no factor {missing[0]!r}; known: {known}")
        if inner in _outers(outer, nested):
            raise StudyError(f"{inner!r} and {outer!r} are each nested in the other; leave one of the two out")
    codes = {}
    for name in factors:
        levels = zip(*(factors[each] for each in (name, *_outers(name, nested))), strict=True)
        code = _number(list(levels))
        if code.max() > 0:
            codes[name] = code
    if not codes:
        raise StudyError("no factor has more than one level, so there is nothing to explain; vary one of them")
    return codes


@dataclass(frozen=True, slots=True)
class _Term:
    """A subspace of the cells: `code` numbers the term's levels, `basis` is cells x freedom, orthonormal.

    The last term is what is left of the cells and has no basis.
    """

    owner: str
    code: Any
    basis: Any
    freedom: int


def _find_terms(codes: Mapping[str, Any], nested: Mapping[str, str], cells: int) -> list[_Term]:
    """Return factors, pairs of crossed factors and what is left, each orthogonal to those before it."""
    import numpy

    order = sorted(codes, key=lambda name: len(_outers(name, nested)))
    candidates = [(name, codes[name]) for name in order]
    for first, second in combinations(order, 2):
        if first not in _outers(second, nested) and second not in _outers(first, nested):
            pairs = zip(codes[first].tolist(), codes[second].tolist(), strict=True)
            candidates.append((INTERACTIONS, _number(list(pairs))))
    taken = numpy.full((cells, 1), cells**-0.5)
    terms, last = [], INTERACTIONS
    for owner, code in candidates:
        if code.max() + 1 == cells:  # one level per cell is what is left of the cells after all others
            last = owner if last == INTERACTIONS else last
            continue
        basis = _find_new_directions(numpy.eye(code.max() + 1)[code], taken)
        if basis.shape[1]:
            taken = numpy.hstack([taken, basis])
            terms.append(_Term(owner, code, basis, basis.shape[1]))
    if left := cells - taken.shape[1]:
        terms.append(_Term(last, numpy.arange(cells), None, left))
    for name in codes:
        if all(term.owner != name for term in terms):
            others = ", ".join(repr(other) for other in codes if other != name)
            raise StudyError(
                f"factor {name!r} cannot be told from {others}: in this grid its level follows from theirs; vary it "
                "while they stay, or leave one of them out"
            )
    return terms


def _find_new_directions(columns: Any, taken: Any) -> Any:
    """Return an orthonormal basis of what `columns` span beyond the orthonormal `taken`."""
    from scipy.linalg import qr

    rest = columns - taken @ (taken.T @ columns)
    rest -= taken @ (taken.T @ rest)  # once more, for the digits that the first time lost
    basis, triangle, _ = qr(rest, mode="economic", pivoting=True)
    return basis[:, abs(triangle.diagonal()) > 1e-8]


def _split(terms: Sequence[_Term], table: Any) -> list[Any]:
    """Return the squared coordinates of `table` (cells x columns) in every term's subspace."""
    parts = [(term.basis.T @ table) ** 2 for term in terms if term.basis is not None]
    if terms[-1].basis is None:
        everything = ((table - table.mean(axis=0)) ** 2).sum(axis=0)
        rest = everything - sum(part.sum(axis=0) for part in parts)
        parts.append(rest.clip(min=0)[None])
    return parts


def _solve(
    terms: Sequence[_Term], names: Sequence[str], squares: Any, item_squares: Any, overall: Any, items: int
) -> Any:
    """Return variances, draws x (names, items, residual), that give these mean squares; 0 where below 0.

    `squares` and `item_squares` are draws x terms: of the cells' means, and of their differences from item to
    item. The latter, divided by the items, are in the former and are taken out. `overall` is one per draw.
    """
    import numpy
    from scipy.linalg import solve_triangular

    expected = numpy.array([[_expect(row, column) for column in terms] for row in terms])
    both = numpy.concatenate([squares - item_squares / items, item_squares])
    of_cells, of_items = numpy.split(solve_triangular(numpy.triu(expected), both.T).T, 2)
    cells = len(terms[0].code)
    in_overall = numpy.array([(numpy.bincount(term.code) ** 2).sum() / cells for term in terms])
    owners = numpy.array([term.owner for term in terms])
    columns = [of_cells[:, owners == name].clip(min=0).sum(axis=1) for name in names]
    columns += [(overall - of_items @ in_overall) / cells, of_items.clip(min=0).sum(axis=1)]
    return numpy.stack(columns, axis=1).clip(min=0)


def _expect(row: _Term, column: _Term) -> float:
    """Return how often the variance of `column` is in the mean square of `row`: tr(P Z Z') / freedom."""
    import numpy

    if row.basis is None or column.basis is None:
        return 1.0 if column.basis is None else 0.0
    sums = numpy.zeros((int(column.code.max()) + 1, row.freedom))
    numpy.add.at(sums, column.code, row.basis)
    return float((sums**2).sum() / row.freedom)


def _is_balanced(codes: Sequence[Any]) -> bool:
    """Return whether every level has as many cells as the next and no two factors' subspaces overlap askew."""
    import numpy

    for first, second in combinations(codes, 2):
        together = numpy.zeros((first.max() + 1, second.max() + 1))
        numpy.add.at(together, (first, second), 1)
        met = together[first][:, second]  # cells x cells: symmetric where the two projections commute
        if not (met == met.T).all():
            return False
    return all(len(set(numpy.bincount(code).tolist())) == 1 for code in codes)


def _assemble(names: Sequence[str], found: Any, drawn: Any, level: float) -> tuple[VariancePart, ...]:
    width = len(names)
    shares = _find_shares(found, drawn, level)
    between = [*_find_shares(found[:width], drawn[:, :width], level), (None, None), (None, None)]
    every = zip([*names, ITEMS, RESIDUAL], found.tolist(), shares, between, strict=True)
    return tuple(VariancePart(name, variance, *share, *of_cells) for name, variance, share, of_cells in every)


def _find_shares(found: Any, drawn: Any, level: float) -> list[tuple[float, Interval]]:
    """Return each variance's share of their sum and its interval; shares of nothing are 0."""
    import numpy

    shares = found / (found.sum() or 1.0)
    totals = drawn.sum(axis=1, keepdims=True)
    ratios = numpy.divide(drawn, totals, out=numpy.zeros_like(drawn), where=totals > 0)
    ends = numpy.quantile(ratios, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return [
        (float(share), Interval(float(low), float(high))) for share, (low, high) in zip(shares, ends.T, strict=True)
    ]


def _number(values: Sequence[Hashable]) -> Any:
    import numpy

    numbers: dict[Hashable, int] = {}
    return numpy.array([numbers.setdefault(value, len(numbers)) for value in values])


def _outers(name: str, nested: Mapping[str, str]) -> list[str]:
    found: list[str] = []
    while name in nested and nested[name] not in found:
        name = nested[name]
        found.append(name)
    return found


def describe_shares(decomposition: Decomposition) -> str:
    """Return in plain words which factor moves accuracy most, how sure that is, and what the rest is.

    Percentages are of the variance between cells, with the interval in brackets; the items' are of the
    variance of one answer.
    """
    cells = [part for part in decomposition.parts if part.between is not None]
    ranked = sorted(cells, key=lambda part: -(part.between or 0.0))
    if decomposition.p_value >= 0.05 or not decomposition.between_std:
        varied = ", ".join(WORDS.get(part.name, part.name) for part in cells if part.name != INTERACTIONS)
        return (
            f"It is not shown that anything varied here ({varied}) moves accuracy: {decomposition.items} items let "
            f"{decomposition.cells} equally good cells differ as much (p = {decomposition.p_value:.2f}). More items "
            "could show a smaller effect."
        )
    first, *others = (f"the {WORDS.get(part.name, part.name)}{_verb(part)}{_percent(part)}" for part in ranked)
    items = decomposition.part(ITEMS)
    sentences = [
        "; ".join([f"{first[0].upper()}{first[1:]} of the variance between cells", *others])
        + f" ({100 * decomposition.confidence:.0f} % intervals in brackets).",
        _say_sureness(ranked, decomposition.first_in),
        f"Cells differ by {100 * decomposition.between_std:.1f} points (standard deviation, beyond the luck of "
        f"{decomposition.items} items).",
        f"Of the variance of a single answer, the items explain {_brackets(items.share, items.interval)}.",
        "" if decomposition.balanced else "The grid is unbalanced, so the intervals are approximate.",
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _say_sureness(ranked: Sequence[VariancePart], first_in: float) -> str:
    if len(ranked) < 2:
        return ""
    name = WORDS.get(ranked[0].name, ranked[0].name)
    if first_in >= 0.95:
        return f"That the {name} matters most is sure ({100 * first_in:.0f} %)."
    if first_in >= 0.8:
        return f"That the {name} matters most is likely ({100 * first_in:.0f} %), not sure."
    return f"Which of them matters most is open: the {name} comes first with {100 * first_in:.0f} % only."


def _verb(part: VariancePart) -> str:
    return " explain " if part.name == INTERACTIONS else " explains "


def _percent(part: VariancePart) -> str:
    assert part.between is not None
    assert part.between_interval is not None
    return _brackets(part.between, part.between_interval)


def _brackets(share: float, interval: Interval) -> str:
    return f"{100 * share:.0f} % [{100 * interval.low:.0f}, {100 * interval.high:.0f}]"
