"""Identifiability: refuse data that cannot carry a model, or warn of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ranef.design.columns.written_labels import numbers_hint
from ranef.design.design import Design, RandomTerm, full_rank
from ranef.design.model_matrix import independent_columns
from ranef.design.rows.rows import TermRows
from ranef.design.separation import separated_columns
from ranef.errors import Convergence, DataError, DataWarning, listed, warn
from ranef.families.family import Family
from ranef.families.gaussian import GAUSSIAN
from ranef.formula.terms import INTERCEPT

MIN_RELATIVE_SIGMA = 1e-4  # to the response's sd; below it the residual sd goes to zero
MAX_LEFT = 1e-16  # of the covariance of residuals, squared, by effects that can have it

_BAYESIAN = 'a Bayesian fit, model.fit("mcmc"), can go on with proper priors.'
_PENALISED = 'with proper priors model.fit("map") and model.fit("mcmc") can go on.'


def check_response(design: Design, family: Family = GAUSSIAN) -> None:
    """Refuse a constant response of measurements, which has no residual variance.

    A constant response of counts or classes can be fitted, or is refused by `check_separation`;
    one of measurements too, where an offset varies.

    Raises
    ------
    DataError
    """
    if family.is_discrete:
        return
    rows = design.unweighted
    if rows.spread(rows.y) == 0 and rows.spread(rows.offset) == 0:
        value = f"{rows.mean(rows.y):g}"
        raise DataError(f"the response `{design.response}` is constant ({value} in every row).")
    if family.link.is_identity and rows.spread(rows.y - rows.offset) == 0:
        raise DataError(f"the response `{design.response}` minus its offset is constant.")


def check_identified(
    design: Design, family: Family = GAUSSIAN, *, sigma: float | None = None
) -> None:
    """Refuse data that leave a covariance or a scale without an estimate by REML or ML.

    Raises
    ------
    DataError
        If a factor has one level, a term dependent coefficients or more random effects than the
        rows can tell apart, or X as many columns as rows.
    """
    for term, rows in zip(design.terms, design.sufficient.terms, strict=True):
        _check_columns(term, rows)
        if term.n_levels == 1:
            message = f"the grouping factor `{term.factor}` has one level only, "
            message += f"{listed(term.levels)}: no variance between levels can be estimated; "
            raise DataError(message + _BAYESIAN)
        if sigma is None:
            _check_effects(design, term, rows, family)
    if sigma is None or design.terms:
        _check_saturated(design, family)
    check_varies(design)


def _check_effects(design: Design, term: RandomTerm, rows: TermRows, family: Family) -> None:
    """Refuse random effects whose variance is not to be told from the distribution of a row."""
    effects, n = term.n_levels * term.n_coefs, design.n_obs
    size = f"{term.n_levels} levels of `{term.factor}` x {term.n_coefs}"
    if family.has_sigma and effects >= n and _can_be_residual(design, term, rows, family):
        raise DataError(
            f"{term.text} has {effects} random effects ({size}) for {n} rows, so that their "
            f"variance and the residual variance cannot be told apart; {_BAYESIAN}"
        )
    if _has_single_trials(design, term, family):
        raise DataError(f"{_single_trials(term)}; {_BAYESIAN}")


def _can_be_residual(design: Design, term: RandomTerm, rows: TermRows, family: Family) -> bool:
    """Whether random effects can have the covariance of residuals: Z_j C Z_j' = W_j^-1 for all j.

    Independent coefficients can where a diagonal C does, and only where no level has more rows
    than coefficients. Correlated ones, those of other families and of rows that are known by pairs
    of levels count as if they could.
    """
    if not family.is_linear or term.covariance.pairs or design.sufficient.is_paired:
        return True
    n, k, weights = len(rows.codes), term.n_coefs, design.sufficient.weights
    if np.bincount(rows.codes).max() > k:
        return False
    order = np.argsort(rows.codes)
    codes, Z = rows.codes[order], (rows.columns / np.linalg.norm(rows.columns, axis=0))[order]
    products, wanted = [], []
    for apart in range(k):
        alike = np.flatnonzero(codes[apart:] == codes[: n - apart])
        products.append(Z[alike] * Z[alike + apart])
        wanted.append((apart == 0) / weights[order][alike])
    X, y = np.concatenate(products), np.concatenate(wanted)
    left = y - X @ np.linalg.lstsq(X, y)[0]
    return bool(left @ left <= MAX_LEFT * (y @ y))


def _check_saturated(design: Design, family: Family) -> None:
    """Refuse as many fixed effects as rows, unless these are all that is estimated."""
    n, p = design.n_obs, design.sufficient.X.shape[1]
    if p < n or not (family.parameters or design.terms):
        return
    if family.has_sigma:
        message = f"{p} fixed effects for {n} rows leave nothing to estimate sigma from."
        raise DataError(message + _largest_term(design))
    others = [*family.parameters, *(f"the variance of {term.text}" for term in design.terms)]
    message = f"{p} fixed effects for {n} rows fit every row by themselves and leave nothing to "
    raise DataError(f"{message}estimate {' and '.join(others)} from.{_largest_term(design)}")


def _largest_term(design: Design) -> str:
    """Return a sentence on the fixed term with the most columns, if it has several."""
    number, n_columns = Counter(origin.term for origin in design.origins).most_common(1)[0]
    if n_columns == 1:
        return ""
    term, levels = design.formula.fixed[number], design.recipe.memory.levels
    hints = [numbers_hint(str(f), levels[str(f)]) for f in term.factors if str(f) in levels]
    return f" {n_columns} of them belong to `{term}`.{''.join(hints)}"


def check_varies(design: Design) -> None:
    """Refuse a column of random effects without information on its sd: a column of zeros.

    Raises
    ------
    DataError
    """
    for term, rows in zip(design.terms, design.sufficient.terms, strict=True):
        zero = [c for c, column in zip(term.coefs, rows.columns.T, strict=True) if not column.any()]
        if zero:
            message = f"{term.text}: {listed(zero)} is zero in every row: leave it out."
            raise DataError(message)


def constant_within(design: Design) -> str | None:
    """Return a grouping factor within whose levels the response does not vary, but for offsets."""
    rows = design.sufficient
    y = rows.y - rows.offset
    for term in () if rows.is_paired else rows.terms:
        first = np.unique(term.codes, return_index=True)[1]
        if len(first) < len(y) and np.array_equal(y, y[first][term.codes]):
            return term.factor
    return None


def no_residual(design: Design, factor: str, scale: str) -> str:
    """Return what is said of a response that does not vary within groups."""
    return (
        f"the model fits the response `{design.response}` exactly: it is constant within the "
        f"levels of `{factor}`, and there is no residual variation to estimate {scale} from. Take "
        f"one row of each level, without random effects of `{factor}`."
    )


def check_scale(design: Design, family: Family) -> None:
    """Refuse a response without a link that varies within groups whose intercepts are random.

    The density of a continuous response grows without end there as its scale goes to zero.

    Raises
    ------
    DataError
    """
    if family.is_discrete or not family.parameters or design.sufficient.offset.any():
        return
    factor = constant_within(design)
    if any(INTERCEPT in term.coefs and term.factor == factor for term in design.terms):
        raise DataError(no_residual(design, str(factor), family.parameters[0]))


def check_separation(design: Design, family: Family) -> None:
    """Refuse fixed effects without a maximum likelihood estimate, given the response.

    Parameters
    ----------
    design : Design
        Of full rank.
    family : Family

    Raises
    ------
    DataError
        If every row is 0 (or every one a success), or the fixed effects separate the rows; see
        `ranef.design.separation`.
    """
    separated = separated_columns(design, family)
    if _is_extreme(design, family) and (separated or not design.fixed):
        message = (
            f"the response `{design.response}` is {design.sufficient.y[0]:g} in every row, and the "
            "likelihood has no maximum: it rises without end as the mean approaches that value; "
        )
        raise DataError(message + _PENALISED)
    if separated:
        message = (
            f"the fixed effects separate the values of the response `{design.response}`: the "
            f"likelihood has no maximum, but rises without end with the coefficients of "
            f"{listed(separated)}; leave out what separates, or "
        )
        raise DataError(message + _PENALISED)


def warn_pure(design: Design, family: Family) -> None:
    """Warn of a factor whose levels have one value each: all failures, or all successes."""
    if not family.has_classes:
        return
    for term in design.sufficient.terms:
        successes = np.bincount(term.codes, design.sufficient.weights * design.sufficient.y)
        trials = np.bincount(term.codes, design.sufficient.weights)
        if (trials > 1).any() and ((successes == 0) | (successes == trials)).all():
            message = (
                f"every level of `{term.factor}` has failures only, or successes only: the data "
                "set no limit to how much the levels vary, and the estimated sd may be endless; "
            )
            warn(message + _PENALISED, DataWarning)


def check_not_spanned(design: Design, spanned: Sequence[int]) -> None:
    """Refuse a random term that the fixed effects contain, whose variance REML cannot estimate.

    Parameters
    ----------
    design : Design
    spanned : sequence of int
        The numbers of such terms.

    Raises
    ------
    DataError
    """
    for term in (design.terms[i] for i in spanned):
        raise DataError(
            f"{term.text}: the fixed effects contain every effect of `{term.factor}` already, so "
            "that REML has nothing to estimate its variance from: leave one of the two out."
        )


def check_residual(
    design: Design, ended: Convergence, sigma: float, scale: float | None = None
) -> None:
    """Refuse a model that leaves next to nothing of the response, given that no optimum was found.

    Parameters
    ----------
    design : Design
    ended : Convergence
        How the search ended.
    sigma : float
    scale : float, optional
        Sigma without random effects, where a smaller one can only mean that it goes to zero.

    Raises
    ------
    DataError
    """
    fits = f"the model fits the response `{design.response}`"
    if ended is Convergence.EXACT:
        message = f"{fits} exactly: there is no residual variation to estimate sigma from."
        raise DataError(message)
    vanishes = scale is not None and not sigma > MIN_RELATIVE_SIGMA * scale
    if ended is Convergence.ROUNDED or vanishes:
        raise DataError(
            f"{fits} nearly exactly: a residual standard deviation of {sigma:.1g} is so small "
            "beside its variation that rounding hides the optimum. Check whether it is computed "
            "from the predictors or the grouping factors."
        )


def _check_columns(term: RandomTerm, rows: TermRows) -> None:
    """Refuse coefficients whose variances the data cannot tell apart."""
    kept = independent_columns(rows.columns)
    dependent = [c for j, c in enumerate(term.coefs) if j not in kept]
    if dependent:
        raise DataError(
            f"{term.text}: {listed(dependent)} is zero or a combination of the coefficients before "
            "it, so that their variances cannot be told apart: leave it out."
        )


def warn_dropped(design: Design) -> None:
    """Warn of fixed columns that were left out as combinations of others."""
    if design.dropped:
        message = (
            f"the fixed effects are linearly dependent: {listed(design.dropped)} left out as a "
            "combination of the columns before it."
        )
        warn(message, DataWarning)


def warn_posterior(design: Design, family: Family = GAUSSIAN) -> None:
    """Warn of parameters that only a prior informs."""
    estimable = full_rank(design)
    if estimable.dropped:
        message = (
            f"the fixed effects are linearly dependent ({listed(estimable.dropped)} is a "
            "combination of the columns before it): the data say something about their sums only, "
            "the priors tell them apart."
        )
        warn(message, DataWarning)
    _warn_separated(estimable, family)
    for term in design.terms:
        if term.n_levels == 1:
            message = f"`{term.factor}` has one level only: its sd is informed by the prior alone."
            warn(message, DataWarning)
        elif _has_single_trials(design, term, family):
            warn(f"{_single_trials(term)}: the prior of their sd does.", DataWarning)


def _warn_separated(design: Design, family: Family) -> None:
    separated = separated_columns(design, family)
    if _is_extreme(design, family) and (separated or not design.fixed):
        value = f"{design.sufficient.y[0]:g}"
        message = f"all {design.n_obs} rows of the response `{design.response}` are {value}: "
        warn(f"{message}how near to that its mean is, the priors say.", DataWarning)
    elif separated:
        message = (
            f"the fixed effects separate the values of the response `{design.response}`: how large "
            f"the coefficients of {listed(separated)} are, the priors say."
        )
        warn(message, DataWarning)


def _is_extreme(design: Design, family: Family) -> bool:
    """Whether the response is at one end of its range in every row."""
    return any(bool((design.sufficient.y == end).all()) for end in family.reachable_ends)


def _has_single_trials(design: Design, term: RandomTerm, family: Family) -> bool:
    """Whether each row is a single trial with an intercept of its own."""
    if not family.has_classes or INTERCEPT not in term.coefs:
        return False
    single = (
        np.isin(design.sufficient.y, (0.0, 1.0)).all() and (design.sufficient.weights == 1).all()
    )
    return bool(single) and term.n_levels == design.n_obs


def _single_trials(term: RandomTerm) -> str:
    return f"{term.text} has one trial a level, which says nothing of how much levels vary"
