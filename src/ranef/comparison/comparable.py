"""Which fits can be compared, and by which groups that are left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import pandas as pd
from numpy.typing import ArrayLike

from ranef.arguments import check_choice
from ranef.covariances.covariance import n_theta
from ranef.design.same_data import check_same_data
from ranef.errors import DataError, FitError, listed
from ranef.fits.fit import Fit
from ranef.fits.posterior import PosteriorFit
from ranef.leave_one_out.elpd import GROUP, OBSERVATION
from ranef.model.model import Model

UNITS = (GROUP, OBSERVATION)  # that are left out
_HINT = "give them names: rf.compare({'slopes': fit, 'intercepts': fit0})"


def named_fits(fits: object) -> dict[str, Fit]:
    """Return fits by name.

    Parameters
    ----------
    fits : mapping, or iterable of pairs
        From name to fit.

    Raises
    ------
    FitError
        If there are fewer than two, one is no fit, or names are missing or used twice.
    """
    if isinstance(fits, Fit) or not isinstance(fits, Iterable):
        raise FitError(f"compare takes several fits; {_HINT}.")
    pairs = list(fits.items()) if isinstance(fits, Mapping) else list(fits)
    if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
        raise FitError(f"the fits to compare have no names; {_HINT}.")
    for name, fit in pairs:
        if not isinstance(name, str) or not name.strip():
            raise FitError(f"{name!r} is not the name of a fit; {_HINT}.")
        if not isinstance(fit, Fit):
            message = f"`{name}` is not a fit but {type(fit).__name__}: "
            raise FitError(message + "fit the model first, as by model.fit('quadrature').")
    names = [name for name, _ in pairs]
    repeated = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if repeated:
        raise FitError(
            f"two fits have the name {listed(repeated)}: every fit needs a name of its own."
        )
    if len(pairs) < 2:
        raise FitError(f"compare takes two fits or more, got {len(pairs)}.")
    return dict(pairs)


def check_comparable(fits: Mapping[str, Fit]) -> None:
    """Refuse fits of different data, and fits that are not to be relied on.

    Raises
    ------
    DataError
        If rows, responses or kinds of response differ, or weights that multiply a log density or
        are numbers of trials. Other weights, and offsets, are parts of the models that are
        compared.
    FitError
        If a fit carries a failed diagnostic.
    """
    for (a, first), (b, second) in pairwise(fits.items()):
        same_weights = not (first.family.has_sigma and second.family.has_sigma)
        names = f"`{a}`", f"`{b}`"
        check_same_data(first.design, second.design, names, weights=same_weights, offset=False)
        if first.family.is_discrete != second.family.is_discrete:
            raise DataError(
                f"`{a}` has the {first.family.name} family and `{b}` the {second.family.name} "
                "family: a probability and a density cannot be compared."
            )
    for name, fit in fits.items():
        if not fit.converged:
            message = f"the fit `{name}` is not to be relied on, and neither is a comparison with "
            raise FitError(f"{message}it: {unreliable(fit)}")


def unreliable(fit: Fit) -> str:
    """Return why a fit is not to be relied on."""
    if isinstance(fit, PosteriorFit):
        return " ".join(fit.diagnostics.messages())
    return fit.convergence.value


# -------------------------------------------------------------------- what is left out


def checked_units(units: object, group: object) -> tuple[str, ...]:
    """Return what is left out, or refuse what cannot be, and groups of which none is."""
    named = (units,) if isinstance(units, str) else units
    if not isinstance(named, Iterable):
        raise FitError(f"`units` are of {listed(UNITS)}, got {units!r}.")
    checked = tuple(check_choice("units", unit, UNITS, "cannot be left out") for unit in named)
    if group is not None and GROUP not in checked:
        raise FitError(f"`group` says which groups are left out, and units={units!r} leaves none.")
    return checked


def group_of(fits: Mapping[str, Fit | Model], group: str | ArrayLike | None) -> Any:
    """Return the groups as labels that every model takes, also one without the factor."""
    if group is not None and not isinstance(group, str):
        return group
    factors = {t.factor: t.grouping for fit in fits.values() for t in fit.design.sufficient.terms}
    if not factors:
        return None
    name = _default_factor(fits) if group is None else group
    if name not in factors:
        raise FitError(
            f"no model has the grouping factor {name!r}; there are {listed(factors)}. Labels of "
            "the rows may be given as an array."
        )
    term = factors[name]
    rows = next(iter(fits.values())).design.sufficient.index
    return pd.Series(term.levels[term.codes], index=rows, name=name)


def _default_factor(fits: Mapping[str, Fit | Model]) -> str:
    """Return the first grouping factor of the largest model."""
    return max(fits.values(), key=n_variances).design.sufficient.terms[0].factor


def n_variances(model: Fit | Model) -> int:
    """Return the number of covariance parameters."""
    return n_theta([term.covariance for term in model.design.terms])


def default_note(fits: Mapping[str, Fit], *, asked: bool) -> tuple[str, ...]:
    """Say which groups were left out where the models have several grouping factors."""
    factors = list(dict.fromkeys(t.factor for fit in fits.values() for t in fit.design.terms))
    if not asked or len(factors) < 2:
        return ()
    name = _default_factor(fits)
    others = listed([factor for factor in factors if factor != name])
    said = f"The groups left out are levels of `{name}`, the first factor of the largest model; "
    return (f"{said}`group=` takes {others}, or labels of the rows.",)
