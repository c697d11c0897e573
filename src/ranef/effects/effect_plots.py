"""Pictures of predicted means: `plot_effects`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import numpy as np
import pandas as pd

from ranef._typing import Panels, Style
from ranef.arguments import check_counts
from ranef.effects.linear_functions import wanted_of
from ranef.effects.marginal_means import means
from ranef.effects.reference_grid import given_values, names_of, reference_values
from ranef.errors import FitError
from ranef.fits.fit import Fit
from ranef.plots.effects import effects

GROUPS_IN_WORDS = {
    "population": "of a typical group",
    "average": "mean over groups",
    "new": "of a new group",
    "known": "of known groups",
}


def plot_effects(
    fit: Fit,
    variable: str,
    *,
    by: str | Sequence[str] = (),
    at: Mapping[str, Any] | None = None,
    kind: str = "response",
    groups: str = "population",
    data: bool = False,
    prob: float = 0.95,
    df: str | None = None,
    n: int = 101,
    **style: Unpack[Style],
) -> Panels:
    r"""Draw predicted means over the range of a number, or over the levels of a factor.

    The other predictors are averaged over, as by `means`, whose table is drawn: for a number
    `rf.means(fit, [*by, variable], at={variable: grid}, kind="response")`.

    Parameters
    ----------
    fit : PointFit or PosteriorFit
    variable : str
        A predictor of the fixed effects. A number has a curve with a band, from its smallest value
        to its largest; a factor points with intervals.
    by : str or sequence of str
        Predictors whose values have a curve each: in colours up to six values of the first one, in
        panels beyond, and for a second one. A number has three values, its mean, and a standard
        deviation below and above it. With `groups="known"` grouping factors too.
    at : mapping of str to value or values, optional
        Values of predictors in place of these, and of those that are averaged over.
    kind : {"response", "link"}
        The mean of the response (a probability, for a binomial family), or the linear predictor.
    groups : {"population", "average", "new", "known"}
        Whose means, as of `means`.
    data : bool
        Whether the rows of the data are drawn behind, their response as it is.
    prob, df
        As of `means`.
    n : int
        The number of points of a curve.
    ax : Axes or iterable of Axes, optional
        One for each panel; by default a new figure is made.
    figsize : tuple of float, optional
        The size of a new figure, in inches.

    Returns
    -------
    ndarray of Axes
        One a panel.

    Examples
    --------
    >>> import ranef as rf
    >>> data = rf.load_dataset("Contraception")
    >>> fit = rf.fit("use ~ age + I(age^2) + urban + (1 | district)", data, family="binomial")
    >>> (axes,) = rf.plot_effects(fit, "age", by="urban")
    >>> axes.get_ylabel()
    "probability of use == 'Y',\nof a typical group"
    """
    wanted = wanted_of(fit, kind, prob, df, groups)
    check_counts(n=n)
    names, given = names_of("by=", by), given_values(at)
    if variable in names:
        raise FitError(f"`{variable}` stands along the axis: leave it out of by=.")
    if data and kind == "link" and not fit.family.mean_is_eta:
        raise FitError("data=True draws responses, which are on the scale of kind='response'.")
    values = _grid(fit, variable, names, given, n)
    table = means(fit, [*names, variable], at=values, kind=kind, groups=groups, prob=prob, df=df)
    rows = _rows(fit) if data else None
    if len(reference_values(fit.design).get(variable, ())) != 1:  # levels, also of numbers
        table = table.astype({variable: str})
        rows = None if rows is None else rows.astype({variable: str})
    return effects(
        table, variable, by=names, label=_label(fit, wanted.kind, groups), rows=rows, **style
    )


def _grid(fit: Fit, variable: str, by: Sequence[str], at: dict[str, Any], n: int) -> dict[str, Any]:
    """Return the values of predictors, those of numbers along the axis and of curves among them."""
    frame = fit.design.sufficient.data.frame(offset=fit.design.recipe.offset)
    for name, values in reference_values(fit.design).items():
        if name in at or len(values) > 1 or name not in (variable, *by):
            continue
        x = frame[name].to_numpy(dtype=np.float64)
        if name == variable:
            at[name] = np.linspace(x.min(), x.max(), n if n > 1 else 2)
        elif not fit.design.has_rows:
            raise FitError(
                f"without rows the sd of `{name}` is not known: at={{{name!r}: [...]}} "
                "says for which values there are curves."
            )
        else:
            at[name] = x.mean() + x.std(ddof=1) * np.array([-1.0, 0.0, 1.0])
    return at


def _rows(fit: Fit) -> pd.DataFrame:
    """Return the data with the response as the model has it, `y`."""
    rows = fit.design.rows
    return rows.data.columns.assign(y=rows.y)


def _label(fit: Fit, kind: str, groups: str) -> str:
    """Return what is drawn, in words."""
    response, success = fit.design.response, fit.design.success
    if kind == "link" and not fit.family.mean_is_eta:
        words = f"{fit.family.link.name} of the mean of {response}"
    elif success:
        words = f"probability of {success}"
    else:
        words = f"mean of {response}"
    return f"{words},\n{GROUPS_IN_WORDS[groups]}" if fit.design.terms else words
