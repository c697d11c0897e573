"""Random designs of every structure, and the dense computation that the engine must agree with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ranef.covariances.covariance import factors
from ranef.design.design import Design, build_design
from ranef.formula.terms import read_formula
from ranef.likelihood.linear.crossproducts import CrossProducts

STRUCTURES = {
    "one factor": "y ~ x + (1 | c)",
    "correlated slope": "y ~ x + (x | c)",
    "independent slope": "y ~ x + f + (x || c)",
    "three coefficients": "y ~ x + (1 + x + z | c)",
    "factor slope": "y ~ f + (f | c)",
    "no fixed effects": "y ~ 0 + (1 | c)",
    "no random effects": "y ~ x * f",
    "two terms of one factor": "y ~ x * f + (1 | c) + (0 + x | c)",
    "nested": "y ~ x + (1 | s/c)",
    "nested three deep": "y ~ x + (1 | r/s/c)",
    "nested slopes": "y ~ x + (x | s/c)",
    "crossed": "y ~ (1 | i) + (1 | j) + (1 | r)",
    "crossed slopes": "y ~ x + (x | c) + (z | i)",
    "nested and crossed": "y ~ x + (1 + x + z | c) + (1 | s) + (x | i) + (1 | j)",
    "all of it": "y ~ 0 + x + (f | i) + (x | s/c) + (0 + z | c)",
}

REPEATED = {
    "one factor": "y ~ x + (1 | c)",
    "slopes": "y ~ x + (x | c)",
    "independent slopes": "y ~ x + z + (x || c)",
    "two terms of one factor": "y ~ x + (1 | c) + (0 + x | c)",
    "nested": "y ~ x + (1 | s/c)",
    "nested slopes": "y ~ x + (x | s/c)",
    "nested three deep": "y ~ (1 | r/s/c)",
    "crossed": "y ~ x + (x | c) + (1 | i)",
}


def random_frame(rng: np.random.Generator, n: int = 150) -> pd.DataFrame:
    """Return data with nested factors c in s in r and crossed factors i, j."""
    c = rng.integers(0, 12, n)
    frame = pd.DataFrame({"x": 3 * rng.normal(size=n) + 7, "z": rng.normal(size=n)})
    frame["f"] = rng.choice(list("abc"), n)
    frame["c"], frame["s"], frame["r"] = c, c // 3, c // 6
    frame["i"], frame["j"] = rng.integers(0, 7, n), rng.integers(0, 5, n)
    frame["w"] = rng.uniform(0.3, 3, n)
    frame["y"] = 2 * rng.normal(size=n) + frame["x"] + 1e3
    return frame


def repeated_frame(schools: int = 20) -> pd.DataFrame:
    """Return data of schools with three classes each, every class with one of three designs."""
    rng, rows = np.random.default_rng(1), []
    designs = ([0.0, 1, 2, 3], [0.5, 1, 1, 7, 2], [2.0, 4, 4, 0])
    for c in range(3 * schools):
        xs = designs[(c // 3 + c % 2) % 3]
        rows += [(c, c // 3, c // 6, x) for x in rng.permutation(xs)]
    frame = pd.DataFrame(rows, columns=["c", "s", "r", "x"])
    n = len(frame)
    frame["i"], frame["w"] = frame["x"].rank(method="dense").astype(int) % 5, 1.0 + (frame["x"] > 2)
    frame["z"], frame["y"] = rng.normal(size=n), 1e3 + frame["x"] + rng.normal(size=n)
    frame["y"] += rng.normal(size=n)[frame["c"]]
    return frame


def random_design(formula: str, seed: int, n: int = 150) -> Design:
    """Return a weighted design of a formula on random data."""
    frame = random_frame(np.random.default_rng(seed), n)
    return build_design(read_formula(formula), frame, weights="w")


def random_factors(cross: CrossProducts, seed: int) -> list[NDArray[np.float64]]:
    """Return random relative factors of the right shapes."""
    size = sum(shape.n_theta for shape in cross.covariances)
    return factors(np.random.default_rng(seed).normal(size=size), cross.covariances)


@dataclass(frozen=True)
class Dense:
    """What generalised least squares with the full covariance matrix says."""

    deviance: float
    reml: float
    beta: NDArray[np.float64]
    beta_cov: NDArray[np.float64]
    b: list[NDArray[np.float64]]
    b_cov: list[NDArray[np.float64]]
    b_cov_total: list[NDArray[np.float64]]
    r2: float


def between_and_within(ratio: float, slope: float, n: int = 200) -> pd.DataFrame:
    """Return rows whose slope of x is 0.5 between levels of f, and greater by `slope` within."""
    rng = np.random.default_rng(1)
    f, g, within = rng.integers(0, 20, n), rng.integers(0, 10, n), rng.normal(size=n)
    means = ratio * rng.normal(size=20)
    within -= (np.bincount(f, within) / np.bincount(f))[f]
    effects = rng.normal(size=20)[f] + rng.normal(size=10)[g]
    y = 1 + 0.5 * means[f] + (0.5 + slope) * within + effects + rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": means[f] + within, "f": f, "g": g})


def dense(design: Design, cross: CrossProducts, Lambdas: list[NDArray[np.float64]]) -> Dense:
    """Compute everything from the n x n covariance matrix V / sigma^2 of y."""
    X, y, n, p = design.rows.X, design.rows.y - design.rows.offset, *design.rows.X.shape
    V = np.diag(1 / design.rows.weights)
    blocks = []
    for term, T, Lambda in zip(design.rows.terms, cross.bases, Lambdas, strict=True):
        m, k = term.n_levels, term.n_coefs
        Z = np.zeros((n, m * k))
        for a in range(k):
            Z[np.arange(n), term.codes * k + a] = term.columns[:, a]
        root = np.linalg.solve(T, Lambda)
        G = np.kron(np.eye(m), root @ root.T)
        blocks.append((Z, G))
        V = V + Z @ G @ Z.T
    inverse = np.linalg.inv(V)
    information = X.T @ inverse @ X
    beta_cov = np.linalg.inv(information) if p else information
    beta = beta_cov @ X.T @ inverse @ y
    residual = y - X @ beta
    r2 = float(residual @ inverse @ residual)
    P = inverse - inverse @ X @ beta_cov @ X.T @ inverse
    logdet = np.linalg.slogdet(V)[1]
    return Dense(
        deviance=logdet + n * (1 + np.log(2 * np.pi * r2 / n)),
        reml=logdet
        + (np.linalg.slogdet(information)[1] if p else 0.0)
        + (n - p) * (1 + np.log(2 * np.pi * r2 / (n - p))),
        beta=beta,
        beta_cov=beta_cov,
        b=[G @ Z.T @ inverse @ residual for Z, G in blocks],
        b_cov=[G - G @ Z.T @ inverse @ Z @ G for Z, G in blocks],
        b_cov_total=[G - G @ Z.T @ P @ Z @ G for Z, G in blocks],
        r2=r2,
    )
