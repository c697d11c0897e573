"""Generalised models of every structure on random data, and dense computations to agree with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from designs import random_frame
from numpy.typing import NDArray
from scipy import special, stats

from ranef.covariances.covariance import factors, n_theta, pull_back
from ranef.design.design import Design, build_design, full_rank
from ranef.families.derivatives import differenced
from ranef.families.family import Family
from ranef.families.names import FAMILIES, find_family
from ranef.formula.terms import read_formula
from ranef.likelihood.generalized.glmm import Generalized, prepare
from ranef.likelihood.generalized.pirls import Problem, Setting

type Array = NDArray[np.float64]


def _negative_binomial(y, mu, w, shape):
    return w * stats.nbinom.logpmf(y, shape, shape / (shape + mu))


def _gamma(y, mu, w, sigma):
    a = w / sigma**2
    return stats.gamma.logpdf(y, a, scale=mu / a)


def _student_t(y, mu, w, sigma, nu):
    return stats.t.logpdf(y, nu, mu, sigma / np.sqrt(w))


def made(name, like, **changed):
    """Return a family of which nothing but the log density is known."""
    fields = {
        "variance": lambda mu, *_: np.ones_like(mu),
        "deviance": lambda y, mu, *_: (y - mu) ** 2,
        "draw": lambda rng, mu, *_: rng.normal(mu),
    }
    return Family(name=name, link=find_family(like).link, **(fields | changed))


# Families known by their log density alone
OWN = {
    "a count": made(
        "a count",
        "poisson",
        variance=lambda mu, shape: mu + mu**2 / shape,
        log_density=_negative_binomial,
        support="counts",
        parameters=("shape",),
    ),
    "a scale": made(
        "a scale",
        "poisson",
        variance=lambda mu, sigma: mu**2,  # noqa: ARG005
        log_density=_gamma,
        support="positive",
        parameters=("sigma",),
    ),
    "no peak": made(
        "no peak",
        "gaussian",
        log_density=_student_t,
        parameters=("sigma", "nu"),
    ),
}
KNOWN = {name: find_family(name) for name in FAMILIES}
LINKED = {
    f"{name}, {link}": find_family(name, link)
    for name, link in (
        ("binomial", "probit"),
        ("bernoulli", "cloglog"),
        ("gamma", "inverse"),
        ("poisson", "sqrt"),
    )
}
ALL = KNOWN | OWN | LINKED


def response(family: Family, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    """Return a response in the support of a family, shape (n,), and weights."""
    w = rng.uniform(0.5, 2, n)
    if family.support == "proportions":
        w = rng.integers(1, 6, n).astype(float)
        return rng.binomial(w.astype(int), rng.uniform(0.1, 0.8, n)) / w, w
    made = {
        "binary": lambda: rng.integers(0, 2, n).astype(float),
        "counts": lambda: rng.poisson(rng.gamma(2, 2, n)).astype(float),
        "positive": lambda: rng.gamma(3, 1, n),
        "unit": lambda: rng.beta(2, 3, n),
        "real": lambda: 1 + rng.normal(size=n),
    }
    return made[family.support](), w


def random_model(
    formula: str, family: Family, seed: int, n: int = 90
) -> tuple[Design, Generalized]:
    """Return a design with a response of the family, and the model in its basis."""
    rng = np.random.default_rng(seed)
    frame = random_frame(rng, n)
    design = build_design(read_formula(formula), frame)
    y, weights = response(family, rng, n)
    design = full_rank(design.with_rows(y=y, weights=weights, offset=0.1 * rng.normal(size=n)))
    return design, prepare(design, family)


@dataclass(frozen=True)
class Point:
    """Parameters of a model in its basis."""

    gamma: Array
    theta: Array
    linked: Array

    def psi(self, model: Generalized) -> Array:
        return model.family.unlinked(self.linked)

    def setting(self, model: Generalized) -> Setting:
        return model.at(self.gamma, factors(self.theta, model.covariances), self.psi(model))

    def profile(self, model: Generalized) -> Setting:
        return model.profile(factors(self.theta, model.covariances), self.psi(model))


def random_point(model: Generalized, seed: int) -> Point:
    """Return a point near that of the model without random effects."""
    rng = np.random.default_rng(seed)
    size = 0.05 if model.family.link.positive else 0.7
    return Point(
        gamma=model.gamma + size * rng.normal(size=len(model.gamma)),
        theta=size * rng.normal(size=sum(shape.n_theta for shape in model.covariances)),
        linked=model.family.linked(model.psi) + 0.3 * rng.normal(size=len(model.psi)),
    )


def indicator(problem: Problem) -> Array:
    """Return Z, shape (n, q): block by block, level by level, coefficient by coefficient."""
    parts = [np.empty((len(problem.y), 0))]
    for block in problem.Z.blocks:
        Z = np.zeros((len(problem.y), block.n_levels * block.k))
        for a in range(block.k):
            Z[np.arange(len(Z)), block.codes * block.k + a] = block.columns[:, a]
        parts.append(Z)
    return np.hstack(parts)


def spread(problem: Problem, Lambdas) -> Array:
    """Return Lambda of all random effects, shape (q, q)."""
    from scipy.linalg import block_diag

    pairs = zip(problem.Z.blocks, Lambdas, strict=True)
    blocks = [np.kron(np.eye(block.n_levels), Lambda) for block, Lambda in pairs]
    return block_diag(*blocks) if blocks else np.empty((0, 0))


@dataclass(frozen=True)
class DenseModes:
    """Conditional modes by Newton's method with dense matrices."""

    u: Array
    gamma: Array
    H: Array
    W: Array
    value: float
    laplace: float


def dense_modes(setting: Setting) -> DenseModes:
    """Return conditional modes, and Laplace's approximation there, without the engine."""
    problem, family = setting.problem, setting.problem.family
    q = sum(block.n_levels * block.k for block in problem.Z.blocks)
    A = np.hstack([indicator(problem) @ spread(problem, setting.Lambdas), setting.fixed])
    penalty = np.diag(np.r_[np.ones(q), np.zeros(A.shape[1] - q)])

    def density(eta):
        return family.log_density(
            problem.y, family.link.inverse(eta), problem.weights, *setting.psi
        )

    def at(v):
        eta = setting.base + A @ v
        with np.errstate(all="ignore"):
            L, L1, L2, _ = differenced(density, eta, _step(family, eta))
        value = L.sum() - v @ penalty @ v / 2
        return value, A.T @ L1 - penalty @ v, -L2

    v, (value, slope, W) = np.zeros(A.shape[1]), at(np.zeros(A.shape[1]))
    for _ in range(200):
        H = (A.T * np.maximum(W, 1e-3)) @ A + penalty
        if (np.linalg.eigvalsh((A.T * W) @ A + penalty) > 0).all():
            H = (A.T * W) @ A + penalty
        step = np.linalg.solve(H, slope)
        share = 1.0
        while share > 1e-8 and not at(v + share * step)[0] >= value - 1e-12 * abs(value):
            share /= 2
        v = v + share * step
        value, slope, W = at(v)
        if np.abs(step).max(initial=0.0) < 1e-11:
            break
    H = (A.T * W) @ A + penalty
    laplace = value - np.linalg.slogdet(H[:q, :q])[1] / 2
    return DenseModes(v[:q], v[q:], H, W, value, laplace)


def _step(family: Family, eta: Array) -> Array:
    return 0.03 * (np.minimum(1.0, np.abs(eta)) if family.link.positive else np.ones_like(eta))


def central(function, x: Array, h: float = 1e-3) -> float:
    """Return the derivative in a direction by central differences of the fourth order."""
    step = h * direction(x)
    near = function(x + step) - function(x - step)
    far = function(x + 2 * step) - function(x - 2 * step)
    return (8 * near - far) / (12 * h)


def direction(x: Array) -> Array:
    """Return a direction in which every element has its part."""
    return np.cos(1.0 + 2.0 * np.arange(len(x)))


def brute_force(setting: Setting, points: int, reach: float = 9.0) -> float:
    """Return the log-likelihood of a model with one factor by a dense trapezoid, level by level."""
    problem, (block,), (Lambda,) = setting.problem, setting.problem.Z.blocks, setting.Lambdas
    grid = np.linspace(-reach, reach, points)
    u = np.stack(np.meshgrid(*[grid] * block.k, indexing="ij"), axis=-1).reshape(-1, block.k)
    total = 0.0
    for level in range(block.n_levels):
        rows = np.flatnonzero(block.codes == level)
        eta = setting.base[rows] + u @ Lambda.T @ block.columns[rows].T
        with np.errstate(all="ignore"):
            values = problem.family.log_density(
                problem.y[rows],
                problem.family.link.inverse(eta),
                problem.weights[rows],
                *setting.psi,
            ).sum(1)
        logs = values - 0.5 * (u**2).sum(1) - block.k / 2 * np.log(2 * np.pi)
        total += special.logsumexp(logs) + block.k * np.log(grid[1] - grid[0])
    return float(total)


def packed(model: Generalized, matrices) -> Array:
    """Return the free elements of matrices as a vector."""
    theta = np.zeros(n_theta(model.covariances))
    return pull_back(matrices, theta, model.covariances)
