"""Are posteriors calibrated under the default priors? `uv run benchmarks/default_priors.py -n 99`.

Twenty-four models, linear ones by quadrature or importance sampling, generalised ones by
importance sampling. Parameters are drawn from the default priors at a reference response, a
response from the model; the ranks of the parameters in their posterior are then uniform. What a fit
refuses, or does not vouch for, depends on the response alone and may be left out.

The p-values of all quantities hold together (Holm); `--only` takes a part of a model's name.
"""

import argparse
import multiprocessing
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

import ranef as rf
from ranef.likelihood.predictions import log_likelihood
from ranef.priors.prior_predictive import prior_predictive

DRAWS = {"quadrature": 99, "laplace": 1000}


@dataclass(frozen=True)
class Case:
    """A model of a frame's predictors, and the way to its posterior."""

    formula: str
    family: str = "gaussian"
    method: str = "quadrature"
    far: float = 0.0  # added to x, so that zero is not observed
    weights: str | None = None


def laplace(formula: str, family: str = "gaussian", **options: object) -> Case:
    """Return a case by importance sampling."""
    return Case(formula, family, "laplace", **options)  # type: ignore[arg-type]


CASES = {
    "intercepts": Case("y ~ x + (1 | g)"),
    "slopes": Case("y ~ x + (x | g)"),
    "slopes, far": Case("y ~ x + (x | g)", far=1990),
    "slopes, near": Case("y ~ x + (x | g)", far=3),
    "independent": Case("y ~ x + (x || g)"),
    "slopes alone": Case("y ~ x + (0 + x | g)"),
    "a factor": Case("y ~ f + (f | g)"),
    "cell means": Case("y ~ f + (0 + f | g)"),
    "a power alone": Case("y ~ x + (I(x^2) | g)", far=3),
    "crossed": Case("y ~ x + (1 | g) + (1 | h)"),
    "nested": Case("y ~ x + (1 | h/g)"),
    "weights": Case("y ~ x + (1 | g)", weights="w"),
    "powers, far": laplace("y ~ x + I(x^2) + (x + I(x^2) | g)", far=3),
    "products": laplace("y ~ x*z + (x*z || g)"),
    "bernoulli": laplace("y ~ x + (1 | g)", "bernoulli"),
    "binomial": laplace("y ~ x + (1 | g)", "binomial", weights="n"),
    "binomial, slopes, far": laplace("y ~ x + (x | g)", "binomial", weights="n", far=1990),
    "poisson": laplace("y ~ x + (1 | g)", "poisson"),
    "poisson, slopes": laplace("y ~ x + (x | g)", "poisson"),
    "poisson, slopes, far": laplace("y ~ x + (x | g)", "poisson", far=1990),
    "poisson, crossed": laplace("y ~ x + (1 | g) + (1 | h)", "poisson"),
    "negative binomial": laplace("y ~ x + (1 | g)", "negative_binomial"),
    "gamma": laplace("y ~ x + (1 | g)", "gamma"),
    "t": laplace("y ~ x + (1 | g)", "t"),
}


@cache
def reference(name: str) -> tuple[rf.Model, pd.DataFrame]:
    """Return the model whose priors are used, and its data."""
    case, rng = CASES[name], np.random.default_rng(1)
    sizes = (2, 14, 4, 9, 6, 3, 8, 5, 12, 7)
    g = np.repeat(np.arange(len(sizes)), sizes)
    frame = pd.DataFrame({"g": g, "x": rng.uniform(-1, 2, len(g)) + case.far})
    frame["z"], frame["f"] = rng.normal(size=len(g)), rng.choice(list("ab"), len(g))
    frame["h"] = g % 4 if "h/g" in case.formula else rng.choice(4, len(g))
    frame["w"], frame["n"] = rng.uniform(0.3, 3, len(g)), rng.integers(2, 12, len(g))
    y = rng.poisson(4, len(g)) + 0.5
    if case.family in ("bernoulli", "binomial"):
        frame["y"] = rng.binomial(frame["n"], 0.4) / frame["n"]
        frame["y"] = frame["y"].round() if case.family == "bernoulli" else frame["y"]
    else:
        frame["y"] = y if case.family in ("gaussian", "gamma", "t") else np.floor(y)
    return rf.Model(case.formula, frame, family=case.family, weights=case.weights), frame


def quantities(dataset, design, family) -> dict[str, np.ndarray]:
    """Return the draws of every parameter, of some effects and of log p(y | effects), by name."""
    found = {}
    for name, values in dataset.data_vars.items():
        draws = values.to_numpy().reshape(values.sizes["draw"] * values.sizes["chain"], -1)
        columns = range(draws.shape[1])
        if str(name).startswith("b_"):
            columns = [0, draws.shape[1] - 1]
        if str(name).startswith("corr_"):
            columns = np.flatnonzero(np.tril(np.ones(values.shape[-2:]), -1))
        found |= {f"{name}[{j}]": draws[:, j] for j in columns}
    with np.errstate(all="ignore"):
        rows = log_likelihood(design, family, dataset)["y"].sum("obs").to_numpy()
    return found | {"log p(y | b)": rows.ravel()}


def ranks(name: str, seed: int) -> dict[str, float]:
    """Return the rank of every quantity, from 0 to 1, in one simulation; empty without a fit."""
    case, (model, frame) = CASES[name], reference(name)
    rng = np.random.default_rng(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = prior_predictive(model.design, model.priors, 1, seed, model.family)
        data = frame.assign(y=tree["prior_predictive"]["y"].to_numpy()[0, 0])
        try:
            other = rf.Model(case.formula, data, family=case.family, weights=case.weights)
            other.priors = model.priors
            fit = other.fit(case.method, draws=DRAWS[case.method], seed=seed)
        except (rf.errors.DataError, rf.errors.FitError):
            return {}
    if not fit.converged:
        return {}
    truth = quantities(tree["prior"].to_dataset(), fit.design, model.family)
    drawn = quantities(fit.posterior["posterior"].to_dataset(), fit.design, model.family)
    found = {}
    for key, (value,) in truth.items():
        below, ties = np.sum(drawn[key] < value), np.sum(drawn[key] == value)
        place = below + rng.integers(ties + 1) + rng.uniform()
        found[key] = float(place / (len(drawn[key]) + 1))
    return found


def main() -> None:
    """Run the simulations and print a table."""
    sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
    from calibration import holm, p_value  # type: ignore[import-not-found]

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=1000, help="simulations of each model")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", help="models whose name has this in it")
    arguments = parser.parse_args()
    chosen = [name for name in CASES if arguments.only in name]
    context, p = multiprocessing.get_context("spawn"), {}
    with ProcessPoolExecutor(arguments.workers, context, threadpool_limits, (1,)) as pool:
        for place, name in enumerate(CASES):
            if name not in chosen:
                continue
            start, seeds = time.perf_counter(), np.arange(arguments.n) + 10**6 * (place + 1)
            tables = pool.map(ranks, [name] * arguments.n, seeds.tolist(), chunksize=5)
            table = pd.DataFrame([found for found in tables if found])
            own = {(name, key): p_value(values.dropna()) for key, values in table.items()}
            p |= own
            worst = min(own, key=own.__getitem__)
            print(
                f"{name:22} {len(table):5} of {arguments.n} fits, {len(own):2} quantities, "
                f"smallest p {own[worst]:.4f} ({worst[1]}), {time.perf_counter() - start:.0f} s",
                flush=True,
            )
    print("\nSmallest p-values of all, corrected for their number\n", holm(pd.Series(p)).head(10))


if __name__ == "__main__":
    main()
