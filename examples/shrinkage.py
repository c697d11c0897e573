"""What a random effect does: forty postcodes of 2 to 30 people, simulated so that truth is known.

Writes `shrinkage.png` and `shrinkage-errors.png` into the folder given as the first argument, by
default the current one.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import ranef as rf
from ranef.priors import Constant, Flat

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
folder.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(1)
sizes = np.sort(np.r_[[2, 2, 2, 3, 3, 30], rng.integers(2, 15, 34)])
codes = np.repeat(np.arange(40), sizes)
postcodes = [f"3{i:03d}" for i in range(40)]


def incomes(sd_between: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the true means of postcodes, and an income of every person, in thousands."""
    means = 60 + sd_between * rng.standard_normal(40)
    return means, means[codes] + 15 * rng.standard_normal(len(codes))


def error(estimates: np.ndarray, means: np.ndarray) -> float:
    """Return the root mean squared error over postcodes."""
    return float(np.sqrt(np.mean((np.asarray(estimates) - means) ** 2)))


# 1. One study: the model's estimates lie between a postcode's own mean and the mean of all.
truth, income = incomes(8.0)
people = pd.DataFrame({"postcode": np.repeat(postcodes, sizes), "income": income})
model = rf.Model("income ~ 1 + (1 | postcode)", people)
reml = model.fit()
print(reml, end="\n\n")
print(reml.icc(), end="\n\n")
table = reml.shrinkage_table().set_index("level").loc[postcodes]
print(table[["n", "own", "model", "reliability"]].iloc[[0, 10, 20, 30, 39]].round(2), end="\n\n")

# 2. When is it worth it? Postcodes that differ by more and by less, forty studies of each.
rows = []
for sd in (0.0, 2.0, 4.0, 8.0, 16.0):
    for _ in range(40):
        means, y = incomes(sd)
        mixed = reml.refit(y).coef()["postcode"]["Intercept"].loc[postcodes]
        own = np.bincount(codes, y) / sizes
        rows.append(
            {
                "sd between postcodes": sd,
                "no model of groups": error(np.full(40, y.mean()), means),
                "fixed": error(own, means),
                "mixed": error(mixed, means),
            }
        )
errors = pd.DataFrame(rows).groupby("sd between postcodes").mean()
print("Error of postcode means, by how much postcodes differ")
print(errors.round(2), end="\n\n")

# 3. Its estimates are posterior means, the variances known; where these are not, intervals widen.
sd_between, sd_within = reml.varcorr().table["sdcor"]
known = model.with_priors(
    {"sd_postcode": Constant(sd_between), "sigma": Constant(sd_within), "Intercept": Flat()}
).fit("quadrature")
apart = np.abs(known.ranef_table()["estimate"] - reml.ranef_table()["estimate"]).max()
print(f"REML and the posterior with these variances known differ by {apart:.0e} at most.")
dyestuff = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
for name, few in {"REML": dyestuff.fit(), "posterior": dyestuff.fit("quadrature")}.items():
    print(f"sd of the effects of six batches, {name}: {few.ranef_table()['sd'].mean():.1f}")

axes = {"shrinkage.png": reml.plot_shrinkage(), "shrinkage-errors.png": plt.subplots()[1]}
errors.plot(ax=axes["shrinkage-errors.png"], marker="o", ylabel="error of postcode means")
for name, ax in axes.items():
    ax.figure.savefig(folder / name, dpi=150)
    print(f"wrote {folder / name}")
