"""A fit as single numbers: what is computed at estimates is computed at a posterior's means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ranef._typing import Array
from ranef.covariances.covariance import factors
from ranef.errors import Convergence
from ranef.likelihood.estimate import Estimate, FittedModel


def values_at(fit: Any) -> FittedModel:
    """Return the model of any fit with its estimates, or with posterior means in their place."""
    if not hasattr(fit, "marginals"):
        fitted: FittedModel = fit.fitted_model
        return fitted
    design, parameters = fit.design, dict(fit.parameters)
    sigma = parameters.pop("sigma", 1.0)
    estimate = Estimate(
        theta=(theta := fit.theta),
        Lambdas=tuple(factors(theta, [term.covariance for term in design.terms])),
        beta=fit.fixef().to_numpy(),
        vcov=fit.vcov().to_numpy(),
        sigma=sigma,
        b=(),  # nothing that is computed here asks for effects
        b_cov=(),
        objective=np.nan,
        loglik=np.nan,
        singular=(),
        convergence=Convergence.CHECKED,
        decrement=np.nan,
        evaluations=0,
        trace=(),
        parameters=tuple(parameters.values()),
        working_weights=None if fit.family.is_linear else _working_weights(fit),
    )
    return FittedModel(design, fit.family, fit.method, estimate)


def _working_weights(fit: Any) -> Array:
    """Return the information of each row's linear predictor, at the fitted values."""
    rows, psi = fit.design.rows, np.array([*fit.parameters.values()])
    return np.asarray(fit.family.information(fit.predict(kind="link"), rows.weights, psi))


@dataclass(frozen=True, eq=False)
class Refitted:
    """A fit that is made again without some rows: by what method, and with what options."""

    fit: Any
    method: str
    options: dict[str, Any]


def refitted(fit: Any) -> Refitted:
    """Return the fit that changes are from: a fit whose numbers have no Monte Carlo error."""
    if not hasattr(fit, "marginals"):
        n_agq = fit.estimate.n_agq
        options = {} if fit.family.is_linear or n_agq == 1 else {"n_agq": n_agq}
        return Refitted(fit, fit.method, options)
    if fit.method == "quadrature":
        return Refitted(fit, fit.method, {})
    method = "quadrature" if fit.asked.posterior_method == "quadrature" else "map"
    return Refitted(fit.asked.refit(method), method, {})
