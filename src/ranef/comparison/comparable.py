"""Whether fits can be compared: by what they predict, and by Bayes factors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise

import numpy as np

from ranef.design.design import Design
from ranef.errors import DataError, FitError, listed
from ranef.fits.fit import Fit
from ranef.fits.scored import Scored
from ranef.priors.distributions import Constant
from ranef.priors.resolve import Priors

_HINT = "give them names: rf.compare({'slopes': fit, 'intercepts': fit0})"
_DISCRETE = ("counts", "binary", "proportions")


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
    if any(isinstance(pair, Fit) or not _is_pair(pair) for pair in pairs):
        raise FitError(f"the fits to compare have no names; {_HINT}.")
    for name, fit in pairs:
        if not isinstance(name, str) or not name.strip():
            raise FitError(f"{name!r} is not the name of a fit; {_HINT}.")
        if not isinstance(fit, Fit):
            message = f"`{name}` is not a fit but {type(fit).__name__}: "
            raise FitError(message + "fit the model first, as by model.fit('quadrature').")
    names = [name for name, _ in pairs]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise FitError(
            f"two fits have the name {listed(twice)}: every fit needs a name of its own."
        )
    if len(pairs) < 2:
        raise FitError(f"compare takes two fits or more, got {len(pairs)}.")
    return dict(pairs)


def _is_pair(pair: object) -> bool:
    return isinstance(pair, tuple) and len(pair) == 2


def check_comparable(fits: Mapping[str, Fit]) -> None:
    """Refuse fits of different data, and fits that are not to be relied on.

    Raises
    ------
    DataError
        If rows, responses or kinds of response differ.
    FitError
        If a fit carries a failed diagnostic.
    """
    for (a, first), (b, second) in pairwise(fits.items()):
        _check_rows(a, first.design, b, second.design)
        _check_response(a, first, b, second)
    for name, fit in fits.items():
        if not fit.converged:
            said = (
                fit.diagnostics.messages() if isinstance(fit, Scored) else [fit.convergence.value]
            )
            message = f"the fit `{name}` is not to be relied on, and neither is a comparison with "
            raise FitError(f"{message}it: {' '.join(said)}")


def _check_rows(a: str, first: Design, b: str, second: Design) -> None:
    if first.rows.equals(second.rows):
        return
    only_a = first.rows.difference(second.rows, sort=False)
    only_b = second.rows.difference(first.rows, sort=False)
    parts = [
        f"{len(rows)} only in `{name}` ({listed(rows)})"
        for name, rows in ((a, only_a), (b, only_b))
        if len(rows)
    ]
    which = "; ".join(parts) or "in another order"
    raise DataError(
        f"`{a}` and `{b}` are fits of different rows ({first.n_obs} and {second.n_obs}: {which}): "
        "fit both to the rows that are complete in all columns that either uses."
    )


def _check_response(a: str, first: Fit, b: str, second: Fit) -> None:
    ours, theirs = first.design, second.design
    if ours.response != theirs.response:
        raise DataError(
            f"`{a}` is a model of `{ours.response}` and `{b}` one of `{theirs.response}`: "
            "densities of a response and of its transform are in different units and cannot be "
            "compared. Fit both to the same response; a link function transforms its mean instead."
        )
    if not np.array_equal(ours.y, theirs.y):
        places = np.flatnonzero(ours.y != theirs.y)
        count = f"{len(places)} row{'s' * (len(places) != 1)}"
        raise DataError(
            f"the response `{ours.response}` of `{a}` differs from that of `{b}` in "
            f"{count} ({listed(ours.rows[places])}): they are fits of different data."
        )
    kinds = [fit.family.support in _DISCRETE for fit in (first, second)]
    if kinds[0] != kinds[1]:
        raise DataError(
            f"`{a}` has the {first.family.name} family and `{b}` the {second.family.name} family: "
            "a probability and a density cannot be compared."
        )
    if kinds[0] and not np.array_equal(ours.weights, theirs.weights):
        raise DataError(f"`{a}` and `{b}` have different numbers of trials or weights.")


# --------------------------------------------------------------------------- Bayes factors


def no_bayes_factors(fits: Mapping[str, Scored]) -> str:
    """Return why the marginal likelihoods of fits have no ratio; empty where they have one.

    Notes
    -----
    An improper prior has an arbitrary constant, which cancels where all models share the
    parameter: that of a fixed effect, as long as the models have the same fixed columns, and that
    of sigma. It never cancels for a parameter that some models do not have.

    Source: Berger, Pericchi & Varshavsky (1998), *Sankhya A* 60, 307-321.
    """
    priors = {name: fit.asked.priors for name, fit in fits.items()}
    for name, own in priors.items():
        flat = _improper_variances(own)
        if flat:
            return (
                f"`{name}` has a flat prior on {listed(flat)}, whose arbitrary height would be a "
                "factor of its marginal likelihood: give it a proper prior."
            )
    improper = {name: _improper_common(own) for name, own in priors.items()}
    first = next(iter(fits))
    for name, names in improper.items():
        if names != improper[first]:
            return (
                f"`{first}` and `{name}` do not have flat priors on the same parameters "
                f"({listed(improper[first]) or 'none'}; {listed(names) or 'none'}), so that their "
                "arbitrary heights do not cancel: give all of them proper priors."
            )
        X, other = fits[first].design.X, fits[name].design.X
        if any(p != "sigma" for p in names) and not np.array_equal(X, other):
            return (
                f"`{first}` and `{name}` have different fixed effects with flat priors, whose "
                "arbitrary heights do not cancel: give the fixed effects proper priors."
            )
    return ""


def _improper_variances(priors: Priors) -> list[str]:
    found = [
        f"sd_{term.label}[{coef}]"
        for term in priors.terms
        for coef, sd in zip(term.coefs, term.sd, strict=True)
        if not sd.proper
    ]
    return found + [name for name, prior in priors.parameters if not prior.proper]


def _improper_common(priors: Priors) -> list[str]:
    beta = [n for n, p in zip(priors.fixed, priors.beta, strict=True) if not p.proper]
    is_flat = not priors.sigma.proper and not isinstance(priors.sigma, Constant)
    return beta + ["sigma"] * is_flat
