"""The main job on real data: one formula, its REML fit and its posteriors, side by side.

Writes `sleepstudy-caterpillar.png` and `sleepstudy-shrinkage.png` into the folder given as the
first argument, by default the current one.
"""

import sys
from pathlib import Path

import ranef as rf

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
folder.mkdir(parents=True, exist_ok=True)

# Reaction times (ms) of 18 subjects over ten days with three hours of sleep (Belenky et al. 2003)
sleep = rf.load_dataset("sleepstudy")
model = rf.Model("Reaction ~ Days + (Days | Subject)", sleep)
print(model, end="\n\n")

reml = model.fit()
print(reml, end="\n\n")

exact = model.fit("quadrature")  # with 4 variance parameters an integral, without sampling
print(exact, end="\n\n")

posterior = model.fit("mcmc", seed=1, progressbar=sys.stderr.isatty())
print(posterior, end="\n\n")

print("REML estimates beside posterior means, exact and by NUTS, with exact 95 % HPD intervals")
fits = {"REML": reml, "exact": exact, "NUTS": posterior}
print(rf.side_by_side(fits).join(exact.hdi()).round(2).to_string(), end="\n\n")

for name, axes in {
    "sleepstudy-caterpillar.png": posterior.plot_caterpillar()[0],
    "sleepstudy-shrinkage.png": posterior.plot_shrinkage(),
}.items():
    axes.figure.savefig(folder / name, dpi=150)
    print(f"wrote {folder / name}")
