"""How anxious is a musician before a solo? Two models of simulated diaries, and one question.

Writes `music-shrinkage.png` and `music-residuals.png` into the folder given as the first argument,
by default the current one.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

import ranef as rf

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
folder.mkdir(parents=True, exist_ok=True)

# 1. Thirty-seven musicians note how anxious they are before each of some performances.
rng = np.random.default_rng(961)
sizes = rng.integers(2, 16, 37)
kinds = np.array(["Large Ensemble", "Small Ensemble", "Solo"])
rows = [np.sort(rng.choice(kinds, n, p=rng.dirichlet([1.1, 0.7, 2.2]))) for n in sizes]
diaries = pd.DataFrame(
    {
        "id": np.repeat([f"{i:02d}" for i in range(1, 38)], sizes),
        "perform_type": np.concatenate(rows),
    }
)
small, solo = "perform_type[T.Small Ensemble]", "perform_type[T.Solo]"
truth = {"sd_id[Intercept]": 2.0, f"sd_id[{small}]": 1.4, f"sd_id[{solo}]": 1.0}
diaries = rf.simulate(
    "na ~ perform_type + (perform_type | id)",
    diaries,
    beta={"Intercept": 15.0, small: 0.7, solo: 2.0},
    theta=truth | {f"corr_id[Intercept, {solo}]": 0.7},
    sigma=4.6,
    seed=1,
    frame=True,
)

# 2. Musicians differ in level; or also in what a kind of performance does to them.
levels = rf.fit("na ~ perform_type + (1 | id)", diaries)
kinds_differ = rf.fit("na ~ perform_type + (perform_type | id)", diaries)
print(kinds_differ, end="\n\n")
print(kinds_differ.check(), end="\n\n")
print(rf.anova(levels, kinds_differ, seed=1), end="\n\n")
print(rf.contrasts(kinds_differ, "perform_type", df="satterthwaite"), end="\n\n")

# 3. What is the expected anxiety of the first musician before a solo?
question = {"id": ["01"], "perform_type": ["Solo"]}
for name, fit in {"levels": levels, "kinds differ": kinds_differ}.items():
    print(name)
    print(fit.predict(question, prob=0.95).round(1), end="\n\n")

for name, axes in {
    "music-shrinkage.png": kinds_differ.plot_shrinkage(coefs=("Intercept", solo)),
    "music-residuals.png": kinds_differ.plot_residuals("qq", seed=1),
}.items():
    axes.figure.savefig(folder / name, dpi=150)
    print(f"wrote {folder / name}")
