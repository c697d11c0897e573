"""Is a variance zero? Why chi-squared is wrong, and what is right: the pastes of ten batches.

Writes `testing-null.png` into the folder given as the first argument, by default the current one.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

import ranef as rf

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
folder.mkdir(parents=True, exist_ok=True)
pastes = rf.load_dataset("Pastes")
small = rf.fit("strength ~ 1 + (1 | sample)", pastes, "ml")
large = rf.fit("strength ~ 1 + (1 | batch) + (1 | sample)", pastes, "ml")
observed = 2 * (large.loglik - small.loglik)

# 1. Statistics under the hypothesis: more than half are zero, and chi-squared rejects too rarely.
simulated = rf.anova(small, large, test="bootstrap", n=2000, seed=1, stop=False)
null = simulated.null_table()["statistic"].to_numpy()
print(f"share of zeros: {np.mean(null < 1e-6):.3f}")
print(f"share with chi-squared p < 0.05: {np.mean(stats.chi2.sf(null, 1) < 0.05):.4f}")

# 2. The bootstrap by hand: simulate from the smaller model, fit both, compare.
responses = small.simulate(100, seed=2).T
by_hand = [2 * (large.refit(y).loglik - small.refit(y).loglik) for y in responses]
print(f"p by 100 refits: {(1 + np.sum(np.array(by_hand) >= observed)) / 101:.3f}", end="\n\n")

# 3. "Twice too large" is a rule of thumb.
tests = {
    "chi-squared": rf.anova(small, large, test="chi2"),
    "half of chi-squared": rf.anova(small, large, test="mixture"),
    "F, exact": rf.anova(small, large, test="f"),
    "bootstrap, 2000": simulated,
    "bootstrap, stopped at 50 hits": rf.anova(small, large, test="bootstrap", seed=1),
}
p = pd.Series({name: test.to_frame().loc[2, "p_value"] for name, test in tests.items()}, name="p")
print(p.to_frame().assign(chi_squared_is_larger_by=p["chi-squared"] / p).round(3), end="\n\n")

# 4. One variance against none: exact, also with groups of several sizes.
dyestuff = rf.load_dataset("Dyestuff")
for rows in (dyestuff, dyestuff.drop(index=[0, 1, 2, 8, 9])):
    without, batches = rf.fit("Yield ~ 1", rows), rf.fit("Yield ~ 1 + (1 | Batch)", rows)
    print(rf.anova(without, batches, seed=1), end="\n\n")

# 5. That batches are not shown to differ does not say that they are alike.
formula = "strength ~ 1 + (1 | batch) + (1 | sample)"
print(rf.fit(formula, pastes, "quadrature").hdi())

simulated.plot().figure.savefig(folder / "testing-null.png", dpi=150)
print(f"wrote {folder / 'testing-null.png'}")
