"""Priors for standard deviations: what the defaults imply, how much they matter with six groups.

Writes `priors-posterior.png` and `priors-sensitivity.png` into the folder given as the first
argument, by default the current one.
"""

import sys
from pathlib import Path

import numpy as np

import ranef as rf
from ranef.priors import Constant, Exponential, Flat, HalfNormal, HalfStudentT

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
folder.mkdir(parents=True, exist_ok=True)

# 1. Yields of six batches, made up so that batches differ less than chance would have them.
yields = rf.load_dataset("Dyestuff2")
model = rf.Model("Yield ~ 1 + (1 | Batch)", yields)
print(model, end="\n\n")
responses = model.prior_predictive(n=1000, seed=1)["prior_predictive"]["y"].values
print("95 % of responses, by the priors alone:", np.quantile(responses, [0.025, 0.975]).round(1))
print("observed:", yields["Yield"].min(), "to", yields["Yield"].max(), end="\n\n")

# 2. REML finds zero; the posterior says what the data leave open; "boundary" keeps off zero.
print(model.fit(), end="\n\n")
posterior = model.fit("quadrature")
print(posterior, end="\n\n")
print(model.fit("map", priors="boundary").varcorr(), end="\n\n")

# 3. Other priors of the sd: estimates move, the mean of all batches hardly.
s = yields["Yield"].std()
for prior in (
    HalfStudentT(3, s / 4),
    HalfStudentT(3, 4 * s),
    HalfNormal(s),
    Exponential(s),
    Flat(),
):
    print(prior)
    print(model.fit("quadrature", priors={"sd": prior}).hdi().round(2), end="\n\n")
known = {"sd": Constant(1.0), "sigma": Constant(3.7)}
print(model.fit("quadrature", priors=known).hdi().round(2), end="\n\n")

# 4. The Bayes factor depends on the width of the prior, and says so.
none = rf.fit("Yield ~ 1", yields, "quadrature")
found = rf.compare({"batches": posterior, "none": none}, units=(), progressbar=False)
print(found, end="\n\n")
print(posterior.prior_sensitivity().round(3), end="\n\n")

for name, axes in {
    "priors-posterior.png": posterior.plot_savage_dickey("sd_Batch[Intercept]"),
    "priors-sensitivity.png": found.plot_prior_sensitivity(),
}.items():
    axes.figure.savefig(folder / name, dpi=150)
    print(f"wrote {folder / name}")
