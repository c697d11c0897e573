"""The criterion of a linear model over one or two of its covariance parameters, or sigma."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, Unpack

import numpy as np
import pandas as pd

from ranef._typing import Array, Axes, Style
from ranef.arguments import check_choice, check_known
from ranef.design.labels import theta_names
from ranef.errors import FitError, listed
from ranef.plots.curves.criterion_lines import criterion_lines

RISE = 11.0  # of the criterion, up to which parameters are followed
MAX_STEPS = 12  # each half as long again as the one before
POINTS = {1: 121, 2: 45}  # in each direction, of one parameter and of two
LABELS = {"reml": "REML criterion", "ml": "profiled deviance"}


def chosen(names: Sequence[str], parameters: str | Sequence[str] | None) -> list[int]:
    """Return the places of one or two parameters, the first two by default.

    Raises
    ------
    FitError
        If there is none, no such one, or more than two are named.
    """
    if not names:
        raise FitError("the model has no random effects, and so no theta.")
    wanted = [parameters] if isinstance(parameters, str) else parameters
    of_theta = [name for name in names if name != "sigma"]
    wanted = of_theta[:2] if wanted is None else list(wanted)
    check_known(wanted, names, lambda name: f"theta has no element {name!r}.")
    if not 1 <= len(set(wanted)) == len(wanted) <= 2:
        raise FitError(
            f"one or two elements of theta can be drawn, got {listed(wanted) or 'none'}."
        )
    return [list(names).index(name) for name in wanted]


def criterion_grid(
    criterion: Callable[[Array], float],
    optimum: Array,
    names: Sequence[str],
    places: Sequence[int],
    signed: Sequence[bool],
) -> pd.DataFrame:
    """Return a criterion around its minimum, the other parameters held there.

    Parameters
    ----------
    criterion : callable
        Of theta.
    optimum : ndarray
    names : sequence of str
    places : sequence of int
        Of one or two parameters that vary.
    signed : sequence of bool
        Whether a parameter can be negative.
    """
    lowest = criterion(optimum)
    axes = [
        _axis(criterion, optimum, place, lowest, POINTS[len(places)], signed=signed[place])
        for place in places
    ]
    rows = []
    for values in product(*axes):
        theta = optimum.copy()
        theta[list(places)] = values
        rows.append((*values, criterion(theta)))
    varied = [names[place] for place in places]
    table = pd.DataFrame(rows, columns=[*varied, "criterion"])
    at = dict(zip(varied, optimum[list(places)].tolist(), strict=True))
    table.attrs["optimum"] = at | {"criterion": lowest}
    return table


def _axis(
    criterion: Callable[[Array], float],
    optimum: Array,
    place: int,
    lowest: float,
    points: int,
    *,
    signed: bool,
) -> Array:
    """Return values of one parameter as far as the criterion has risen enough."""

    def end(direction: float) -> float:
        step = 0.05 * max(abs(float(optimum[place])), 0.2)
        for _ in range(MAX_STEPS):
            theta = optimum.copy()
            theta[place] += direction * step
            if not signed and theta[place] <= 0:
                return 0.0
            if criterion(theta) - lowest > RISE:
                break
            step *= 1.5
        return float(optimum[place] + direction * step)

    return np.union1d(np.linspace(end(-1.0), end(1.0), points), optimum[[place]])


class CriterionPictures:
    """The pictures of a linear model's criterion."""

    def criterion_table(
        self, parameters: str | Sequence[str] | None = None, method: str = "reml"
    ) -> pd.DataFrame:
        """Return the criterion over one or two elements of theta, as `plot_criterion` draws it.

        Parameters
        ----------
        parameters : str or sequence of str, optional
            Their names, as of `fit.theta_names`, or "sigma"; by default the first two of theta.
        method : {"reml", "ml"}

        Returns
        -------
        DataFrame
            The elements of theta, and `criterion`; all other elements are held at the optimum,
            which is `.attrs["optimum"]`. Sigma is the best at each place where it is no axis.

        Raises
        ------
        FitError
            If there are no such elements, or the model is not linear.

        Examples
        --------
        >>> import ranef as rf
        >>> model = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
        >>> {k: round(v, 3) for k, v in model.criterion_table().attrs["optimum"].items()}
        {'Batch.Intercept': 0.848, 'criterion': 319.654}
        """
        model: Any = self
        check_choice("method", method, ("reml", "ml"), "has no criterion")
        if not model.family.is_linear:
            raise FitError("criterion_table is for linear models; see log_likelihood.")
        sds = {f"{term.label}.{coef}" for term in model.design.terms for coef in term.coefs}
        names = theta_names(model.design)
        if names and model.priors.known_sigma is None:
            names = [*names, "sigma"]
        places = chosen(names, parameters)
        signed = [name not in {"sigma", *sds} for name in names]
        with_sigma = "sigma" in [names[place] for place in places]
        fit = model.fit(method)

        def criterion(at: Array) -> float:
            sigma = float(at[-1]) if with_sigma else None
            return float(model.criterion(at[: len(fit.theta)], method, sigma=sigma))

        optimum = np.append(fit.theta, fit.sigma)
        table = criterion_grid(criterion, optimum, names, places, signed)
        table.attrs["label"] = LABELS[method]
        return table

    def plot_criterion(
        self,
        parameters: str | Sequence[str] | None = None,
        method: str = "reml",
        **style: Unpack[Style],
    ) -> Axes:
        """Draw the criterion over one element of theta, or its contours over two.

        Parameters
        ----------
        parameters, method
            As of `criterion_table`.
        ax : matplotlib Axes, optional
            A new figure is made by default.
        figsize : tuple of float, optional
            Of a new figure, in inches.

        Returns
        -------
        matplotlib Axes
            With the optimum marked. Contours are where the criterion has risen by quantiles of the
            chi-squared distribution: a contour that meets an axis says that zero is in reach.
        """
        return criterion_lines(self.criterion_table(parameters, method), **style)
