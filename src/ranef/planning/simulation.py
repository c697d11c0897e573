"""Responses of a planned study at stated parameters: `rf.simulate`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ranef._typing import Array, Seed
from ranef.arguments import check_counts, check_seed
from ranef.errors import FitError
from ranef.families.family import Family
from ranef.families.links import Link
from ranef.formula.syntax import Column
from ranef.numerics.memory import check_memory
from ranef.planning.planned_rows import Plan
from ranef.planning.stated_parameters import own_parameters, planned_responses, stated


def simulate(
    formula: str,
    design: object,
    *,
    beta: ArrayLike | Mapping[str, float] | None = None,
    theta: ArrayLike | Mapping[str, Any] | None = None,
    sigma: float | None = None,
    n: int = 1,
    seed: Seed = None,
    family: str | Family = "gaussian",
    link: str | Link | None = None,
    parameters: Mapping[str, float] | None = None,
    weights: str | ArrayLike | None = None,
    offset: str | ArrayLike | None = None,
    functions: Mapping[str, Callable[..., Any]] | None = None,
    frame: bool = False,
) -> Array | pd.DataFrame:
    """Draw responses of rows that have none, at stated parameters.

    Parameters
    ----------
    formula : str
        As of `Model`; the response on its left needs no column.
    design : DataFrame
        The rows of the planned study: predictors and grouping factors.
    beta : array, Series or mapping of str to float
        Fixed effects, in the order of the columns of X or by name.
    theta : array, Series or mapping
        The random effects: standard deviations and correlations by name, as in
        `{"sd_Subject[Intercept]": 25, "sd_Subject[Days]": 6, "corr_Subject[Intercept, Days]": 0.1}`
        (correlations are zero by default), `{"Subject": 25}` for a single coefficient or
        `{"Subject": {"Intercept": 25, "Days": 6}}`; or relative covariance parameters in lme4's
        order.
    sigma : float
        The residual standard deviation, where the family has one.
    n : int
        Number of data sets.
    seed : int, numpy Generator or SeedSequence, optional
        The same seed gives the same responses.
    family, link, weights, offset, functions
        As of `Model`. The weights of a binomial family are numbers of trials, which
        `cbind(successes, trials - successes)` takes from a column `trials` too.
    parameters : mapping of str to float, optional
        Other parameters of the family, such as `{"shape": 2}`.
    frame : bool
        Whether the data frame with the responses is returned.

    Returns
    -------
    ndarray, shape (rows, n), or DataFrame
        Of a binomial family proportions. With `frame=True` the design with the response as one
        more column, to be fitted at once; of several data sets one below the other, told apart by
        the column `replicate`.

    Raises
    ------
    FitError
        If a parameter is missing, has another name, or is none of the model's.
    DataError, FormulaError
        As of `Model`.

    Examples
    --------
    >>> import ranef as rf
    >>> design = pd.DataFrame({"clinic": np.repeat(range(12), 4), "dose": 12 * [0, 1, 2, 3]})
    >>> data = rf.simulate(
    ...     "pain ~ dose + (1 | clinic)", design, beta={"Intercept": 6, "dose": -0.5},
    ...     theta={"clinic": 1.2}, sigma=0.8, seed=1, frame=True,
    ... )
    >>> rf.fit("pain ~ dose + (1 | clinic)", data).fixef().round(1).to_dict()
    {'Intercept': 6.1, 'dose': -0.5}
    """
    check_counts(n=n)
    seed = check_seed(seed)
    options = {"link": link, "weights": weights, "offset": offset, "functions": functions}
    plan = Plan.of(formula, design, family, **options)
    planned = plan.design()
    truth = stated(planned, plan.family, beta, theta, own_parameters(parameters, sigma))
    check_memory(
        float(n) * planned.n_obs,
        f"{n:,} responses of {planned.n_obs:,} rows",
        "Take fewer at a time (`n=`).",
    )
    y = planned_responses(planned, plan.family, truth, n, np.random.default_rng(seed)).T
    return _framed(plan, planned.rows.weights, y) if frame else y


def _framed(plan: Plan, trials: Array, y: Array) -> pd.DataFrame:
    """Return the design with its responses, in the columns that the formula reads."""
    from ranef.formula.terms import read_formula

    response = read_formula(plan.formula, plan.functions or ()).response
    counted = getattr(response, "function", "") == "cbind" and plan.weights is None
    node = response.args[0] if counted else response  # type: ignore[union-attr]
    if not isinstance(node, Column):
        raise FitError(
            f"the response `{response}` is not a column: with frame=True name one in the formula, "
            "on the scale that it is modelled on."
        )
    values = np.round(y * trials[:, None]).astype(np.int64) if counted else y
    n = y.shape[1]
    parts = [plan.frame.assign(**{node.name: values[:, i]}) for i in range(n)]
    if n == 1:
        return parts[0]
    return pd.concat([part.assign(replicate=i) for i, part in enumerate(parts)], ignore_index=True)
