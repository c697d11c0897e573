"""The posterior of sleepstudy under the default priors, by NUTS: writes `default_priors.json`.

The model is written out by hand, with nothing of the package in it. All subjects have the same ten
days, so that with the random effects integrated out each row of the table of subjects is normal
with one covariance. Run from this directory, a quarter of an hour: `python make_default_priors.py`.
"""

import json
from pathlib import Path

import numpy as np
import nutpie
import pandas as pd
import pymc as pm
import pytensor.tensor as pt

HERE = Path(__file__).parent
SLEEPSTUDY = HERE.parents[1] / "src" / "ranef" / "data" / "sleepstudy.csv"
DRAWS, CHAINS, BATCHES, SEED = 250_000, 4, 50, 20


def model():
    """Return the model: priors of the random effects at Days = 0, of the intercept at the mean."""
    data = pd.read_csv(SLEEPSTUDY)
    y = data.pivot_table(index="Subject", columns="Days", values="Reaction").to_numpy()
    days, s_y = np.arange(10.0), data["Reaction"].std()
    s_x = data["Days"].std()
    with pm.Model() as made:
        at_mean = pm.Normal("at_mean", data["Reaction"].mean(), 2.5 * s_y)
        slope = pm.Normal("slope", 0, 2.5 * s_y / s_x)
        sigma = pm.HalfStudentT("sigma", 3, s_y)
        sd = pm.HalfStudentT("sd", 3, np.array([s_y, s_y / s_x]), shape=2)
        corr = 2 * pm.Beta("half_corr", 2, 2) - 1  # LKJ(2) of two coefficients
        pm.Deterministic("corr", corr)
        pm.Deterministic("intercept", at_mean - 4.5 * slope)
        ones, outer = np.ones((10, 10)), np.add.outer(days, days)
        cov = sd[0] ** 2 * ones + sd[0] * sd[1] * corr * outer
        cov = cov + sd[1] ** 2 * np.outer(days, days) + sigma**2 * np.eye(10)
        mu = at_mean + slope * (days - 4.5)
        pm.MvNormal("y", mu, chol=pt.linalg.cholesky(cov), observed=y)
    return made


if __name__ == "__main__":
    compiled = nutpie.compile_pymc_model(model())
    tree = nutpie.sample(compiled, draws=DRAWS, tune=2000, chains=CHAINS, seed=SEED, cores=2)
    names = ["intercept", "slope", "sigma", "sd", "corr"]
    posterior, found = tree["posterior"].to_dataset(), {}
    for name in names:
        draws = posterior[name].to_numpy()
        batches = draws.reshape(CHAINS * BATCHES, DRAWS // BATCHES, *draws.shape[2:]).mean(axis=1)
        mcse = batches.std(axis=0, ddof=1) / np.sqrt(len(batches))
        found[name] = {"mean": batches.mean(axis=0).tolist(), "mcse": mcse.tolist()}
    (HERE / "default_priors.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
