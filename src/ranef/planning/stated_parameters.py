"""The parameters that a planned study is thought to have, by name, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ranef._typing import Array
from ranef.arguments import by_name, check_known, check_numbers
from ranef.covariances.covariance import factors, sd_and_corr
from ranef.design.design import Design, RandomTerm
from ranef.design.labels import corr_name, sd_name, theta_names
from ranef.design.new_data.new_rows import own_rows, with_strangers
from ranef.errors import FitError, listed, suggestion
from ranef.families.family import Family
from ranef.likelihood.predictions import Draws, drawn_rows

MIN_EIGENVALUE = -1e-10  # of a matrix of correlations, by rounding


@dataclass(frozen=True, eq=False)
class Truth:
    """The parameters that responses are drawn at.

    Attributes
    ----------
    beta : ndarray, shape (p,)
    parameters : dict of str to float
        The family's own parameters, sigma among them where it has one.
    roots : tuple of ndarray, shape (k, k)
        A square root of the covariance of each term, on the user's scale.
    """

    beta: Array
    parameters: dict[str, float]
    roots: tuple[Array, ...]

    @property
    def sigma(self) -> float:
        """The residual standard deviation; 1 where the family has none."""
        return self.parameters.get("sigma", 1.0)

    def draws(self, n: int) -> Draws:
        """Return the parameters n times, for groups none of which is known."""
        none = [np.empty((0, len(root))) for root in self.roots]
        return Draws.of_point(n, self.beta, self.parameters, self.roots, none)

    def words(self, design: Design) -> list[str]:
        """Return the parameters in words, one for each, by their names in `estimates()`."""
        values = dict(zip(design.fixed, self.beta, strict=True)) | self.parameters
        for term, root in zip(design.terms, self.roots, strict=True):
            sds, corr = sd_and_corr(root @ root.T)
            values |= {sd_name(term, i): sd for i, sd in enumerate(sds)}
            values |= {corr_name(term, i, j): corr[i, j] for i, j in term.covariance.pairs}
        return [f"{name} {value:.4g}" for name, value in values.items()]


def own_parameters(parameters: object, sigma: float | None) -> dict[str, float]:
    """Return the family's own parameters as they are given, sigma among them."""
    if not isinstance(parameters, Mapping | pd.Series | None):
        kind = type(parameters).__name__
        raise FitError(f"parameters= is a mapping from names to numbers, got {kind}.")
    given = {} if parameters is None else dict(parameters)
    return given | ({} if sigma is None else {"sigma": sigma})


def stated(
    design: Design,
    family: Family,
    beta: ArrayLike | Mapping[str, float] | None,
    theta: ArrayLike | Mapping[str, Any] | None,
    parameters: Mapping[str, float],
) -> Truth:
    """Return parameters that are given by the user, or say what is missing.

    Parameters
    ----------
    design : Design
        X of full column rank.
    family : Family
    beta : array, Series or mapping of str to float
        Fixed effects in their order, or by name.
    theta : array, Series or mapping
        Relative covariance parameters in lme4's order, or by their names; or standard deviations
        and correlations by their names in `estimates()`, `sd_Subject[Days]` and
        `corr_Subject[Intercept, Days]`: correlations are zero by default. `sd_Subject`, or
        `Subject` alone, is the sd of a single coefficient, or a dict from coefficient to sd.
    parameters : mapping of str to float
        The family's own parameters, sigma among them.

    Raises
    ------
    FitError
    """
    psi = _own_parameters(family, parameters)
    if beta is None:
        raise FitError(f"beta is missing: give the fixed effects {listed(design.fixed, limit=20)}.")
    if isinstance(beta, Mapping | pd.Series):
        _check_told_apart(design, beta)
    values = by_name("beta", beta, design.fixed)
    if np.shape(values) != (len(design.fixed),):
        raise FitError(
            f"beta has shape {np.shape(values)}, expected {len(design.fixed)} fixed effects: "
            f"{listed(design.fixed, limit=20)}."
        )
    numbers = check_numbers("beta", values, len(design.fixed))
    return Truth(numbers, psi, _roots(design, theta, psi.get("sigma", 1.0)))


def _check_told_apart(design: Design, beta: Mapping[str, float] | pd.Series) -> None:
    """Refuse effects of columns that say nothing beside the others in these rows."""
    lost = [name for name in beta if name in design.recipe.X.names and name not in design.fixed]
    if lost:
        raise FitError(
            f"beta: {listed(lost, limit=20)} cannot be told apart from the other fixed effects in "
            f"the {design.n_obs} rows of this design, {listed(design.fixed, limit=20)}: leave "
            "them out, or plan rows in which their predictors vary by themselves."
        )


def _own_parameters(family: Family, given: Mapping[str, float]) -> dict[str, float]:
    for name in given:
        if name not in family.parameters:
            there = listed(family.parameters) or "no parameters of its own"
            raise FitError(f"the {family.name} family has no `{name}`; it has {there}.")
    for own in family.records:
        if own.name not in given:
            how = "sigma=" if own.name == "sigma" else f"parameters={{'{own.name}': ...}}"
            raise FitError(f"`{own.name}` is missing: the {family.name} family needs it: {how}.")
        if not own.takes(given[own.name]):
            raise FitError(f"`{own.name}` must be a {own.kind}, got {given[own.name]!r}.")
    return {name: float(given[name]) for name in family.parameters}


def _roots(design: Design, theta: Any, sigma: float) -> tuple[Array, ...]:
    covariances, names = [term.covariance for term in design.terms], theta_names(design)
    sds = [sd_name(term, j) for term in design.terms for j in range(term.n_coefs)]
    if theta is None:
        if not names:
            return ()
        raise FitError(
            "theta is missing: give the standard deviations of the random effects by name, "
            f"{listed(sds, limit=20)}, or the relative parameters {listed(names, limit=20)}."
        )
    if isinstance(theta, Mapping | pd.Series):
        named = {str(name): value for name, value in theta.items()}
        if set(named) != set(names):
            return _by_sds(design, named)
        theta = [named[name] for name in names]
    if np.shape(theta) != (len(names),):
        there = f"{len(names)}: {listed(names, limit=20)}" if names else "none"
        raise FitError(f"theta has shape {np.shape(theta)}, expected {there}.")
    relative = factors(check_numbers("theta", theta, len(names)), covariances)
    return tuple(sigma * Lambda for Lambda in relative)


def _by_sds(design: Design, given: Mapping[str, Any]) -> tuple[Array, ...]:
    """Return roots of the covariances that standard deviations and correlations make up."""
    values = by_full_names(design, given)
    expected = [sd_name(term, j) for term in design.terms for j in range(term.n_coefs)]
    missing = [name for name in expected if name not in values]
    if missing:
        raise FitError(f"theta: {listed(missing, limit=20)} is missing.")
    return tuple(_root(term, values) for term in design.terms)


def by_full_names(design: Design, given: Mapping[str, Any]) -> dict[str, float]:
    """Return standard deviations and correlations by their names in `estimates()`."""
    values: dict[str, float] = {}
    for name, value in given.items():
        one = _single(design, str(name), value)
        if repeated := [name for name in one if name in values]:
            raise FitError(f"theta: {listed(repeated)} is given twice.")
        values |= one
    return values


def _single(design: Design, name: str, value: Any) -> dict[str, float]:
    """Return one item of the user's, by the full names of what it stands for."""
    known: dict[str, float] = {}
    for term in design.terms:
        sds = {coef: sd_name(term, j) for j, coef in enumerate(term.coefs)}
        corrs = [corr_name(term, i, j) for i, j in term.covariance.pairs]
        if name in (term.label, f"sd_{term.label}") and isinstance(value, Mapping):
            check_known(value, sds, partial("theta: `{}` has no coefficient `{}`.".format, name))
            return {sds[coef]: _number(sds[coef], sd, 0, np.inf) for coef, sd in value.items()}
        if name in (term.label, f"sd_{term.label}"):
            if len(sds) > 1:
                wanted = ", ".join(f"'{coef}': ..." for coef in sds)
                message = f"theta: {term.text} has {len(sds)} standard deviations: "
                raise FitError(f"{message}{{'{name}': {{{wanted}}}}}.")
            name = next(iter(sds.values()))
        if name == f"corr_{term.label}" and len(corrs) == 1:
            name = corrs[0]
        if name in sds.values():
            return {name: _number(name, value, 0, np.inf)}
        if name in corrs:
            return {name: _number(name, value, -1, 1)}
        known |= dict.fromkeys([*sds.values(), *corrs], 0.0)
    raise FitError(f"theta: `{name}` is no parameter of the model. {suggestion(name, known)}")


def _number(name: str, value: Any, lowest: float, highest: float) -> float:
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not is_number or not lowest <= value <= highest or np.isinf(value):
        kind = "a correlation, from -1 to 1" if lowest else "a standard deviation, zero or more"
        raise FitError(f"theta: `{name}` must be {kind}, got {value!r}.")
    return float(value)


def _root(term: RandomTerm, values: Mapping[str, float]) -> Array:
    sds = np.array([values[sd_name(term, j)] for j in range(term.n_coefs)])
    corr = np.eye(term.n_coefs)
    for i, j in term.covariance.pairs:
        corr[i, j] = corr[j, i] = values.get(corr_name(term, i, j), 0.0)
    lengths, axes = np.linalg.eigh(corr)
    if lengths[0] < MIN_EIGENVALUE:
        raise FitError(
            f"theta: the correlations of {term.text} are none of one distribution: their matrix "
            f"has the eigenvalue {lengths[0]:.3g}."
        )
    return np.asarray(sds[:, None] * axes * np.sqrt(np.maximum(lengths, 0.0)))


def planned_responses(
    design: Design, family: Family, truth: Truth, n: int, rng: np.random.Generator
) -> Array:
    """Return responses of new groups in the rows of a design, shape (n, rows).

    Raises
    ------
    FitError
        If some are larger than counts or numbers can be, or smaller.
    """
    rows = with_strangers(own_rows(design))
    with np.errstate(over="ignore", divide="ignore"):
        y = drawn_rows(design, family, rows, truth.draws(n), rng, kind="observation")
    out = ~((y >= family.range.least) & (y <= family.range.most))
    if out.any() and not family.is_bounded:
        place, row = np.argwhere(out)[0]
        raise FitError(
            f"row {row} has a response of {y[place, row]:.3g}, which is out of reach: `beta` and "
            f"`theta` hold on the scale of the {family.link.name} link. Give smaller ones, or "
            "predictors in larger units."
        )
    return y
