"""How often 95 % intervals of predictions hold the truth, over simulated data sets.

    uv run benchmarks/interval_coverage.py [data sets, 2000] [methods, reml quadrature]

Groups have intercepts and slopes, half of the rows of each a treatment; the truth is known and the
same in all data sets. Point fits have intervals with variances as if known, and means also with
Satterthwaite's degrees of freedom; posteriors, by "quadrature" or "laplace", have highest density
intervals under the default priors.
"""

import sys
import warnings
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pandas as pd

import ranef as rf

BETA, ROOT, SIGMA = np.array([250.0, 10.0]), np.array([[25.0, 0.0], [1.0, 6.0]]), 25.0
TREATMENT = {"a": 0.0, "b": 10.0}  # the mean of each, less that of the first
SIZES = {"18 groups of 10": (18, 10), "6 groups of 6": (6, 6)}
COLUMNS = [
    "known group, mean",
    "known group, new row",
    "new group, mean",
    "new group, new row",
    "typical group",
    "coefficient of a group",
    "marginal mean",
    "marginal mean, t",
    "contrast",
    "contrast, t",
]


def held(table, truth):
    return np.mean((table["lower"] <= truth) & (truth <= table["upper"]))


def one(job):
    size, seed, methods = job
    m, n = SIZES[size]
    rng = np.random.default_rng([seed, m])
    x = np.tile(np.arange(n) * 9.0 / (n - 1), m)
    group = np.repeat(np.arange(m), n)
    b = BETA + rng.standard_normal((m + 1, 2)) @ ROOT.T
    f = np.array(list(TREATMENT))[(np.arange(m * n) + group) % 2]
    mean = b[group, 0] + b[group, 1] * x + pd.Series(f).map(TREATMENT)
    data = pd.DataFrame({"y": mean + SIGMA * rng.standard_normal(m * n), "x": x, "g": group})
    data["f"] = f
    at = pd.DataFrame({"x": 4.5, "g": np.arange(m), "f": "a"})
    of_known, of_new = b[:m] @ [1, 4.5], b[m] @ [1, 4.5]
    stranger = pd.DataFrame({"x": [4.5], "f": "a"})
    of_f = BETA @ [1, 4.5] + np.array(list(TREATMENT.values()))
    model, found = rf.Model("y ~ x + f + (x | g)", data), {}
    for method in methods:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = model.fit(method)
            is_point = isinstance(fit, rf.PointFit)
            single = {"prob": 0.95, "interval": "prediction"}
            y = SIGMA * rng.standard_normal(m + 1)
            found[method] = [
                held(fit.predict(at, prob=0.95), of_known),
                held(fit.predict(at, **single), of_known + y[:m]),
                held(fit.predict(stranger, "new", prob=0.95), of_new),
                held(fit.predict(stranger, "new", **single), of_new + y[m]),
                held(fit.predict(stranger, "population", prob=0.95), BETA @ [1, 4.5]),
                held(fit.coef_table(), b[:m].ravel()),
                held(rf.means(fit, "f"), of_f),
                held(rf.means(fit, "f", df="satterthwaite"), of_f) if is_point else np.nan,
                held(rf.contrasts(fit, "f"), of_f[0] - of_f[1]),
                held(rf.contrasts(fit, "f", df="satterthwaite"), of_f[0] - of_f[1])
                if is_point
                else np.nan,
            ]
    return found


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    methods = sys.argv[2:] or ["reml", "quadrature"]
    rows = {}
    with ProcessPoolExecutor() as pool:
        for size in SIZES:
            shares = list(
                pool.map(one, [(size, seed, methods) for seed in range(count)], chunksize=4)
            )
            for method in methods:
                rows[size, method] = 100 * np.mean([s[method] for s in shares], axis=0)
    print(f"Per cent of 95 % intervals that hold the truth, {count} data sets")
    print(pd.DataFrame.from_dict(rows, orient="index", columns=COLUMNS).round(1).T.to_string())


if __name__ == "__main__":
    main()
