"""Generalised models in independent components, and their densities by integration."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import special

from ranef.design.design import build_design
from ranef.families.names import find_family
from ranef.formula.terms import read_formula
from ranef.posterior.generalized_posterior import joint_of
from ranef.priors.assignment import resolve

FAMILIES = {
    "binomial": ("logit", ()),
    "bernoulli": ("probit", ()),
    "poisson": ("log", ()),
    "negative_binomial": ("log", (2.0,)),
    "gamma": ("inverse", (0.5,)),
    "inverse_gaussian": ("log", (0.5,)),
    "beta": ("logit", (5.0,)),
    "t": ("identity", (1.0, 4.0)),
    "gaussian": ("log", (0.5,)),
}


def data_of(family, n=48, levels=8) -> pd.DataFrame:
    """Return responses of a family: g and h are crossed, g is nested in s."""
    fam, rng = find_family(family, FAMILIES[family][0]), np.random.default_rng(5)
    g, x = np.arange(n) % levels, rng.normal(size=n)
    eta = 0.6 + 0.3 * x + 0.5 * rng.normal(size=levels)[g]
    if fam.link.name == "inverse":
        eta = 2 + eta / 10
    trials = rng.integers(1, 9, n) * 1.0 if family == "binomial" else np.ones(n)
    y = fam.draw(rng, fam.link.inverse(eta), trials, *FAMILIES[family][1])
    frame = pd.DataFrame({"y": y, "x": x, "g": g, "s": g // 2, "h": rng.integers(0, 4, n)})
    return frame.assign(row=np.arange(n), won=np.round(y * trials), lost=trials - y * trials)


def joint_case(right, family, data=None, priors="default"):
    """Return a design, its posterior and priors."""
    left = "cbind(won, lost)" if family == "binomial" else "y"
    fam = find_family(family, FAMILIES[family][0])
    frame = data_of(family) if data is None else data
    design = build_design(read_formula(f"{left} ~ {right}"), frame, family=fam)
    found = resolve(design, priors, fam)
    return design, joint_of(design, fam, found), found


def some_values(joint, count=3):
    """Return values near where a search for the mode starts."""
    steps = np.random.default_rng(1).normal(size=(count, joint.space.d))
    return joint.space.values(joint.start() + 0.3 * steps @ joint.units().T)[0]


def by_integration(joint, values, nodes=1501):
    """Return log p of all subsets of the rows of a level: a function, by the trapezoidal rule."""
    problem, setting = joint.model.problem, joint.setting(values)
    (block,), (Lambda,) = problem.Z.blocks, setting.Lambdas
    axis = np.linspace(-13, 13, nodes if block.k == 1 else 161)
    u = np.stack(np.meshgrid(*[axis] * block.k, indexing="ij"), -1).reshape(-1, block.k)
    logs = -0.5 * (u**2).sum(1) + block.k * np.log((axis[1] - axis[0]) / np.sqrt(2 * np.pi))
    eta = setting.base[:, None] + block.columns @ Lambda @ u.T
    y, w = problem.y[:, None], problem.weights[:, None]
    rows = problem.family.expansion(y, eta, w, setting.psi).value
    return lambda own: float(special.logsumexp(rows[own].sum(0) + logs))
