"""Linear functions of the effects, and means that follow from them, with their errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse, special

from ranef._typing import Array
from ranef.arguments import check_choice
from ranef.design.groups import transposed
from ranef.design.new_data.new_rows import NewRows, rows_of
from ranef.design.rows.rows import TermRows
from ranef.effects.multiple_tests import p_values, quantiles
from ranef.errors import FitError, probability
from ranef.families.derivatives import differenced
from ranef.fits.fit import Fit
from ranef.fits.point import PointFit
from ranef.fits.posterior import PosteriorFit
from ranef.fits.predictions.asked_rows import GROUPS
from ranef.fits.predictions.estimated_rows import OBSERVATIONS, estimated_draws, estimated_rows
from ranef.fits.predictions.prediction_table import Question, parts
from ranef.likelihood.predictions import drawn_rows, mean_over_groups, with_drawn_levels
from ranef.numerics.memory import check_memory
from ranef.posterior.draws import hdi

SCALES = ("link", "response")

type Effects = Mapping[str, sparse.csr_array]
"""By the label of a term, by how much sums rise with its effects, shape (r, levels k)."""


@dataclass(frozen=True)
class Wanted:
    """What is wanted of linear functions.

    Attributes
    ----------
    kind : {"link", "response"}
    prob : float
        Probability of the intervals.
    df : str or None
        The kind of degrees of freedom of a linear point fit; None is a normal distribution.
    groups : {"population", "average", "new", "known"}
        Whose means, as of `Fit.predict`.
    adjust : {"none", "tukey", "holm"}
        How several tests of a point fit are adjusted; a posterior needs no adjustment.
    n_means : int
        How many means Tukey's tests are between.
    """

    kind: str = "link"
    prob: float = 0.95
    df: str | None = None
    groups: str = "population"
    adjust: str = "none"
    n_means: int = 2

    @property
    def asked(self) -> Question:
        """The same as a question to predictions."""
        return Question(groups=self.groups, kind=self.kind, prob=self.prob)


@dataclass(frozen=True)
class Change:
    """How two means are compared: by the difference of a function of them.

    Attributes
    ----------
    name : str
    of : callable
        The function, which rises.
    slope : callable
        Its derivative.
    highest : float
        The function is of numbers between zero and this one; nan where it is of all numbers.
    is_ratio : bool
        Whether the difference is one of logarithms, and shown as a ratio. Its test is that of the
        difference, and the ends of its interval are those of the difference.
    """

    name: str
    of: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    highest: float = np.nan
    is_ratio: bool = False

    def at(self, means: Array) -> Array:
        """Return the function of means, or refuse means of which there is none.

        Raises
        ------
        FitError
        """
        if not np.isnan(self.highest) and (
            means.min(initial=1) <= 0 or means.max() >= self.highest
        ):
            span = "above 0" if np.isinf(self.highest) else f"between 0 and {self.highest:g}"
            raise FitError(
                f"comparison={self.name!r} is of means {span}, and there are others: from "
                f"{means.min():.4g} to {means.max():.4g}. Take comparison='difference'."
            )
        return self.of(means)

    def shown(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return a table of differences as one of what is shown."""
        if self.is_ratio:
            ends = ["estimate", "lower", "upper"]
            table[ends] = np.exp(table[ends])
            table["se"] *= table["estimate"]
        return table


DIFFERENCE = Change("difference", lambda mean: mean, np.ones_like)
RATIO = Change("ratio", np.log, np.reciprocal, np.inf, is_ratio=True)
CHANGES = {
    "difference": DIFFERENCE,
    "ratio": RATIO,
    "lnratio": replace(RATIO, name="lnratio", is_ratio=False),
    "lnor": Change("lnor", special.logit, lambda mean: 1 / (mean * (1 - mean)), 1.0),
}
"""By the names of marginaleffects: lnratio and lnor are logarithms of ratios of means and odds."""


def wanted_of(
    fit: object, kind: str, prob: float, df: str | None, groups: str = "population"
) -> Wanted:
    """Return what is wanted, or refuse what is no fit or has no answer.

    Raises
    ------
    FitError
    """
    if not isinstance(fit, PointFit | PosteriorFit):
        raise FitError(f"expected a fit, got {type(fit).__name__}: model.fit() makes one.")
    if df is not None and isinstance(fit, PosteriorFit):
        raise FitError(
            f"df={df!r} is for point fits: a posterior has the uncertainty of the variances "
            "in it, and no tests."
        )
    if df is not None and not fit.family.is_linear and isinstance(fit, PointFit):
        fit.asked.degrees_of_freedom(fit.fitted_model, df)  # says why there are none
    check_choice("kind", kind, SCALES, "is not a scale")
    check_choice("groups", groups, GROUPS, "is not an option")
    if df is not None and groups != "population":
        raise FitError(f"df={df!r} is for groups='population', the fixed effects, not {groups!r}.")
    is_same = fit.family.mean_is_eta
    return Wanted("link" if is_same else kind, probability(prob), df, groups)


def of_means(fit: Fit, rows: NewRows, wanted: Wanted) -> pd.DataFrame:
    """Return means, each a row, with errors and intervals; nan in the places of rows left out."""
    if wanted.df is not None and isinstance(fit, PointFit):  # of a linear model
        eta = rows.offset + rows.X @ fit.fixef().to_numpy()
        se, df = _errors(fit, rows.X, wanted.df)
        half = quantiles(wanted.prob, df, "none", 1) * se
        numbers = {"estimate": eta, "se": se, "lower": eta - half, "upper": eta + half, "df": df}
        return _spread(rows, numbers)
    names = ("estimate", "se" if isinstance(fit, PointFit) else "sd", "lower", "upper")
    return _spread(rows, dict(zip(names, _predicted(fit, rows, wanted), strict=True)))


def of_changes(
    fit: Fit,
    both: NewRows,
    wanted: Wanted,
    *,
    change: Change = DIFFERENCE,
    average: sparse.csr_array | None = None,
) -> pd.DataFrame:
    """Return how averages of means change from some rows to others, as one family of tests.

    Parameters
    ----------
    fit : Fit
    both : NewRows
        The n rows after the change, then the same before it.
    wanted : Wanted
    change : Change
        How two averages are compared.
    average : sparse array, shape (averages, n), optional
        The weight of every row in every average; each row by itself by default.
    """
    n, is_linear = len(both.asked) // 2, wanted.kind == "link" and change is DIFFERENCE
    over = sparse.eye_array(n, format="csr") if average is None else average
    lost = np.isnan(both.spread(both.offset))
    gaps = over @ (lost[:n] | lost[n:]).astype(np.float64) > 0
    over = over[~gaps]
    ends = sparse.kron(sparse.eye_array(2), over, format="csr")[:, both.places]
    rise, groups = _difference(over.shape[0]), () if wanted.asked.is_average else both.terms
    steps: list[Any] = [_difference(n)[:, both.places], over]
    if isinstance(fit, PointFit):
        mean, slope = _means_at_estimates(fit, both, wanted)
        means = ends @ mean
        if not is_linear:
            steps = [ends * slope, rise * change.slope(means)]
    X, offset, effects = _sums(both, groups, steps)
    places, asked = np.flatnonzero(~gaps), pd.RangeIndex(len(gaps))
    rows = replace(rows_of(X, offset), places=places, asked=asked)
    if is_linear and not effects:
        return of_tests(fit, rows, wanted)
    if isinstance(fit, PosteriorFit):
        draws = change.at(_drawn_averages(fit, both, ends, wanted)) @ rise.T
        if is_linear:
            expected = fit._expected(both, wanted.asked)  # noqa: SLF001 -- as predict
            draws += rise @ (ends @ expected) - draws.mean(axis=0)
        return _of_draws(rows, draws, wanted, change)
    assert isinstance(fit, PointFit)
    estimate, is_new = rise @ change.at(means), any(term.is_new.any() for term in groups)
    if is_linear or not is_new:
        errors = _errors(fit, X, wanted.df, effects)
        table = _tested(rows, estimate, errors, wanted)
    else:
        draws, tail = change.at(_drawn_averages(fit, both, ends, wanted)) @ rise.T, 1 - wanted.prob
        table = _tested(rows, estimate, (draws.std(axis=0), np.full(len(X), np.inf)), wanted)
        found = np.quantile(draws, [tail / 2, 1 - tail / 2], axis=0)
        table[["lower", "upper"]] = rows.spread(found.T)
    return change.shown(table)


def of_tests(fit: Fit, rows: NewRows, wanted: Wanted) -> pd.DataFrame:
    """Return linear functions with tests of zero, or with posterior probabilities of being above.

    Parameters are those of `of_changes`.
    """
    if isinstance(fit, PosteriorFit):
        above = [_probability_above(fit, part) for part in parts(rows, fit.marginals.n_points)]
        columns = (*_predicted(fit, rows, wanted), np.concatenate(above))
        return _spread(rows, dict(zip((*_COLUMNS, "probability"), columns, strict=True)))
    assert isinstance(fit, PointFit)
    estimate = rows.offset + rows.X @ fit.fixef().to_numpy()
    errors = _errors(fit, rows.X, wanted.df)
    return _tested(rows, estimate, errors, wanted)


def of_slopes(fit: Fit, here: NewRows, slope: NewRows, wanted: Wanted) -> pd.DataFrame:
    """Return slopes of means, by the chain rule: of the inverse link times those of eta.

    Parameters
    ----------
    fit : Fit
    here, slope : NewRows
        The means, and their derivatives, in the same places.
    wanted : Wanted
    """
    if wanted.kind == "link":
        return of_tests(fit, slope, wanted)
    if isinstance(fit, PosteriorFit):
        draws = fit.draws_at()
        eta, rise = (draws.beta @ rows.X.T + rows.offset for rows in (here, slope))
        psi = [fit.marginals.drawn.parameter(name)[:, None] for name in fit.family.parameters]
        return _of_draws(slope, _derivatives(fit, eta, psi)[1] * rise, wanted)
    assert isinstance(fit, PointFit)
    eta, rise = (rows.X @ fit.fixef().to_numpy() + rows.offset for rows in (here, slope))
    _, first, second = _derivatives(fit, eta, list(fit.parameters.values()))[:3]
    X = first[:, None] * slope.X + (second * rise)[:, None] * here.X
    return _tested(slope, first * rise, _errors(fit, X, wanted.df), wanted)


_COLUMNS = ("estimate", "sd", "lower", "upper")


def is_drawn(fit: Fit, wanted: Wanted, rows: NewRows) -> bool:
    """Whether changes of means are drawn of a point fit: they are if groups are new to it."""
    is_new = any(term.is_new.any() for term in rows.terms)
    return isinstance(fit, PointFit) and is_new and wanted.groups == "new" and wanted.kind != "link"


def interval_words(fit: Fit, wanted: Wanted, *, drawn: bool = False) -> str:
    """Return what the intervals are."""
    if isinstance(fit, PosteriorFit):
        return f"{100 * wanted.prob:g} % HPD interval"
    if drawn:
        return f"{100 * wanted.prob:g} % interval, quantiles of draws"
    together = {"tukey": ", simultaneous (Tukey)", "holm": ", simultaneous (Bonferroni)"}
    which = f"t interval, {wanted.df}" if wanted.df else "Wald interval"
    return f"{100 * wanted.prob:g} % {which}{together.get(wanted.adjust, '')}"


def _tested(
    rows: NewRows, estimate: Array, errors: tuple[Array, Array], wanted: Wanted
) -> pd.DataFrame:
    """Return estimates of a point fit with their errors and degrees of freedom."""
    (se, df), family = errors, (wanted.adjust, wanted.n_means)
    half = quantiles(wanted.prob, df, *family) * se
    ratio = np.divide(estimate, se, out=np.full_like(se, np.nan), where=se > 0)
    numbers = {"estimate": estimate, "se": se, "lower": estimate - half, "upper": estimate + half}
    tests = {"t" if wanted.df else "z": ratio, "p_value": p_values(ratio, df, *family)}
    return _spread(rows, numbers | ({"df": df} if wanted.df else {}) | tests)


def _errors(
    fit: PointFit, X: Array, df: str | None, effects: Effects | None = None
) -> tuple[Array, Array]:
    """Return standard errors of X beta and their degrees of freedom, shape (r,).

    With sums of random effects they are those of X beta + Z b, see `MixedModelEquations`.
    """
    if df is None:
        variance, slopes = _of_groups(fit, effects) if effects else (0.0, 0.0)
        X = X - slopes
        se = np.sqrt(variance + np.einsum("np,pq,nq->n", X, fit.vcov().to_numpy(), X))
        return se, np.full(len(X), np.inf)
    table = fit.asked.degrees_of_freedom(fit.fitted_model, df, X)
    return table["se"].to_numpy(), table["df"].to_numpy()


def _of_groups(fit: PointFit, effects: Effects) -> tuple[Array, Array]:
    """Return the variances of sums of random effects given beta, and by how much they fall."""
    model, known, new = fit.fitted_model, list[sparse.csr_array](), list[Array]()
    equations = fit.asked.equations(model)
    slopes: Array = np.zeros((1, 1))
    for term, Lambda, A in zip(
        fit.design.terms, model.estimate.Lambdas, equations.modes_by_fixed, strict=True
    ):
        both, q = effects[term.label], term.n_levels * term.n_coefs
        of_new, root = both[:, q:], model.estimate.sigma * Lambda
        known.append(both[:, :q])
        slopes = slopes + both[:, :q] @ A.reshape(q, -1)
        if of_new.nnz:
            roots = sparse.kron(sparse.eye_array(of_new.shape[1] // term.n_coefs), root)
            new.append((of_new @ roots).power(2).sum(axis=1))
    return sum(new, start=equations.variances_of_sums(known)), slopes


def _difference(n: int) -> sparse.csr_array:
    """Return the matrix of differences of the first n numbers and the last n."""
    return sparse.kron([[1.0, -1.0]], sparse.eye_array(n), format="csr")


def _sums(
    rows: NewRows, groups: Sequence[TermRows], steps: Sequence[sparse.csr_array]
) -> tuple[Array, Array, Effects]:
    """Return sums of rows as functions of the effects: X, offset, Z by the label of a term.

    There is no Z where no sum rises with a random effect.

    Parameters
    ----------
    rows : NewRows
    groups : sequence of TermRows
        The random terms that take part, new levels being the last ones.
    steps : sequence of sparse array
        The matrices that make the sums, one after the other.
    """

    def summed(values: Any) -> Any:
        for step in steps:
            values = step @ values
        return values

    effects = {}
    for term in groups:
        numbers = term.grouping.numbers
        n_levels = max(term.n_levels, int(numbers.max(initial=-1)) + 1)
        effects[term.label] = summed(transposed(numbers, term.columns, n_levels).T)
    is_touched = any(abs(of_term).max() for of_term in effects.values())
    return summed(rows.X), summed(rows.offset), effects if is_touched else {}


def _means_at_estimates(fit: PointFit, rows: NewRows, wanted: Wanted) -> tuple[Array, Array]:
    """Return the means of rows, and their derivatives in the linear predictor."""
    normal = estimated_rows(fit.fitted_model, rows, None, fixed=False)
    eta, between, psi = normal.mean[0], normal.between[0], normal.psi[:, 0]
    if wanted.kind == "link":
        return eta, np.ones_like(eta)
    mean, slope = differenced(
        lambda at: mean_over_groups(fit.family, at, between, psi), eta, fit.family.link.step(eta)
    )[:2]
    return mean, slope


def _drawn_averages(fit: Fit, rows: NewRows, over: sparse.csr_array, wanted: Wanted) -> Array:
    """Return draws of averages of the means of rows, shape (draws, averages)."""
    rng, average = np.random.default_rng(0), wanted.asked.is_average
    if isinstance(fit, PosteriorFit):
        draws = fit.draws_at()
    else:
        assert isinstance(fit, PointFit)
        draws = estimated_draws(fit.fitted_model, rows, fit.engine, OBSERVATIONS, rng)
    size = over.shape[0] * len(draws.beta)
    check_memory(2.0 * size, f"{size:,} draws of comparisons", "Average them, or take fewer rows.")
    if not average:
        rows, draws = with_drawn_levels(fit.design, rows, draws, rng)
    total, start = np.zeros((len(draws.beta), over.shape[0])), 0
    for part in parts(rows, len(draws.beta)):
        means = drawn_rows(
            fit.design, fit.family, part, draws, rng, kind=wanted.kind, average=average
        )
        end = start + len(part.X)
        total += (over[:, start:end] @ means.T).T
        start = end
    return total


def _derivatives(fit: Fit, eta: Array, psi: Sequence[Any]) -> list[Array]:
    """Return the mean of a typical group and its derivatives in the linear predictor."""
    return differenced(lambda at: fit.family.mean(at, psi), eta, fit.family.link.step(eta))


def _of_draws(
    rows: NewRows, draws: Array, wanted: Wanted, change: Change = DIFFERENCE
) -> pd.DataFrame:
    """Return a table of draws of differences, shape (draws, n)."""
    above, draws = (draws > 0).mean(axis=0), np.exp(draws) if change.is_ratio else draws
    numbers = (draws.mean(axis=0), draws.std(axis=0, ddof=1), *hdi(draws[None], wanted.prob))
    return _spread(rows, dict(zip((*_COLUMNS, "probability"), (*numbers, above), strict=True)))


def _predicted(fit: Fit, rows: NewRows, wanted: Wanted) -> tuple[Array, Array, Array, Array]:
    """Return expected values of rows, their errors, and the ends of intervals, as fits predict."""
    uncertainty = "fixed" if isinstance(fit, PointFit) else None
    intervals = fit._intervals(wanted.asked, uncertainty, None, 0)  # noqa: SLF001 -- as predict
    return fit._expected(rows, wanted.asked), *intervals.of(rows)  # noqa: SLF001 -- as predict


def _probability_above(fit: PosteriorFit, rows: NewRows) -> Array:
    """Return the posterior probability that each linear function is above zero, shape (n,)."""
    normal = fit.marginals.normal_rows(rows)
    mean, sd = np.broadcast_arrays(normal.mean, np.sqrt(normal.variance))
    z = np.divide(mean, sd, out=np.where(mean == 0, 0.0, np.copysign(np.inf, mean)), where=sd > 0)
    return np.asarray(normal.weights @ special.ndtr(z))


def _spread(rows: NewRows, numbers: dict[str, Array]) -> pd.DataFrame:
    return pd.DataFrame({name: rows.spread(values) for name, values in numbers.items()})
