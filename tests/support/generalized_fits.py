"""Point fits of generalised models whose numbers are given: by lme4, or made up."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pandas as pd
from reference_cases import REFERENCE, read_frame

import ranef as rf
from ranef.covariances.covariance import factors
from ranef.design.design import build_design
from ranef.families.names import find_family
from ranef.formula.terms import read_formula
from ranef.likelihood.estimate import Estimate

FORMULAS = {
    "one factor": "{y} ~ x + (1 | g)",
    "correlated slopes": "{y} ~ x + (x | g)",
    "two terms of one factor": "{y} ~ x + (1 | g) + (0 + x | g)",
    "crossed": "{y} ~ x + (1 | g) + (x || h)",
    "no random terms": "{y} ~ x",
    "no fixed effects": "{y} ~ 0 + (1 | g)",
    "offset": "{y} ~ x + offset(z / 5) + (1 | g)",
}
FAMILIES = {
    "binomial": ("logit", ()),
    "bernoulli": ("probit", ()),
    "poisson": ("log", ()),
    "negative_binomial": ("log", (2.3,)),
    "gamma": ("log", (0.6,)),
    "inverse_gaussian": ("log", (0.4,)),
    "beta": ("logit", (7.0,)),
    "t": ("identity", (1.3, 4.5)),
    "gaussian": ("log", (0.7,)),
}
TRIALS = "cbind(k, trials - k)"


def cases() -> list[dict]:
    """Return lme4's generalised cases."""
    content = json.loads((REFERENCE / "lme4.json").read_text())
    found = [case for case in content["cases"] if case["family"] != "gaussian"]
    for case in found:
        case["folder"] = REFERENCE / content["meta"]["data_dir"]
    return found


def point_fit(
    formula,
    data,
    family,
    *,
    theta=None,
    beta=None,
    b=None,
    psi=(),
    method="ml",
    loglik=-123.4,
    convergence=rf.Convergence.CONVERGED,
    **changed,
):
    """Return a fit with given numbers; what is not given is made up."""
    design, rng = design_of(formula, data, family), np.random.default_rng(7)
    shapes = [t.covariance for t in design.terms]
    size, p = sum(s.n_theta for s in shapes), len(design.fixed)
    theta = rng.uniform(0.3, 0.8, size) if theta is None else np.array(theta)
    beta = rng.normal(0.3, 0.2, p) if beta is None else np.array(beta)
    own = dict(zip(family.parameters, psi, strict=True))
    sigma = own.pop("sigma", 1.0)
    Lambdas = tuple(factors(theta, shapes))
    if b is None:
        u = [rng.normal(size=(t.n_levels, t.n_coefs)) for t in design.terms]
        b = [sigma * one @ Lambda.T for one, Lambda in zip(u, Lambdas, strict=True)]
    half = rng.normal(size=(p, p + 2)) / 10
    roots = [rng.normal(size=(t.n_levels, t.n_coefs, t.n_coefs + 2)) / 5 for t in design.terms]
    numbers = {
        "theta": theta,
        "Lambdas": Lambdas,
        "beta": beta,
        "vcov": half @ half.T,
        "sigma": sigma,
        "b": tuple(b),
        "b_cov": tuple(root @ np.swapaxes(root, 1, 2) for root in roots),
        "objective": -2 * loglik,
        "loglik": loglik,
        "singular": (False,) * len(design.terms),
        "convergence": convergence,
        "decrement": 0.0,
        "evaluations": 1,
        "trace": ((-2 * loglik, theta),),
        "parameters": tuple(own.values()),
        "working_weights": rng.uniform(0.1, 2, design.n_obs),
    }
    return rf.PointFit(design, family, method, Estimate(**numbers | changed))


@cache
def made_up(family_name, kind, **changed):
    """Return a fit of simulated data, of any family and structure."""
    link, psi = FAMILIES[family_name]
    family = find_family(family_name, link)
    formula = FORMULAS[kind].format(y=TRIALS if family_name == "binomial" else "y")
    return point_fit(formula, simulated(family_name), family, psi=psi, **changed)


@cache
def simulated(family_name):
    """Return data of a family; 200 rows."""
    link, psi = FAMILIES[family_name]
    family, rng, n = find_family(family_name, link), np.random.default_rng(3), 200
    data = pd.DataFrame({"x": rng.normal(size=n), "z": rng.normal(size=n)})
    data["g"], data["h"] = rng.choice(list("abcdefgh"), n), rng.integers(0, 5, n)
    data["trials"] = rng.integers(1, 9, n)
    eta = 0.2 + 0.4 * data["x"] + rng.normal(0, 0.5, 8)[data["g"].map("abcdefgh".index)]
    w = data["trials"].to_numpy(dtype=float) if family_name == "binomial" else np.ones(n)
    data["y"] = family.draw(rng, family.link.inverse(eta.to_numpy()), w, *psi)
    return data.assign(k=np.round(data["y"] * data["trials"]))


def of_reference(case):
    """Return the fit with lme4's numbers."""
    data = read_frame(case)
    if case["id"].startswith("cbpp"):
        formula = case["formula"]
    else:
        formula = case["formula"].replace("use ~", "(use == 'Y') ~", 1)
        data["ch"] = np.where(data["livch"] == "0", "N", "Y")
    family = find_family("binomial")
    loglik = case.get("logLik_absolute", case["logLik"])
    design = design_of(formula, data, family)
    modes, covs = [], []
    for term, found in zip(design.terms, case["ranef"], strict=True):
        assert list(map(str, term.levels)) == found["levels"]
        k = term.n_coefs
        modes.append(np.array(found["modes"]).reshape(-1, k))
        covs.append(np.array(found["condVar"]).reshape(-1, k, k))
    return point_fit(
        formula,
        data,
        family,
        theta=case["theta"],
        beta=list(case["fixef"].values()),
        b=modes,
        loglik=loglik,
        vcov=np.array(case["vcov_hessian"]),
        b_cov=tuple(covs),
        n_agq=case["nAGQ"],
    )


def design_of(formula, data, family):
    """Return a design."""
    return build_design(read_formula(formula), data, family=family)
