"""Which random effects? The same question asked four ways, on two data sets.

Writes `comparing-prior-scales.png` and `comparing-subjects.png` into the folder given as the first
argument, by default the current one.
"""

import sys
from pathlib import Path

import ranef as rf

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
folder.mkdir(parents=True, exist_ok=True)
show = sys.stderr.isatty()

# 1. Reaction times: do subjects differ in how fast they tire, and does that go with their start?
sleep = rf.load_dataset("sleepstudy")
model = rf.Model("Reaction ~ Days + (Days | Subject)", sleep)
structures = rf.compare_structures(model, seed=1, progressbar=show)
print(structures, end="\n\n")

# 2. The classical way: likelihood-ratio tests, one structure after the other. The chi-squared
# distribution is wrong where a variance is zero; the exact one, or a simulated one, is right.
fits = [other.fit() for other in model.structures().values()]
print(rf.anova(*fits, test="chi2"), end="\n\n")
print(rf.anova(fits[0], fits[1]), end="\n\n")
print(rf.anova(fits[1], fits[2], seed=1), end="\n\n")

# 3. Casks of a paste from ten batches: is there variation between batches beyond that of casks?
pastes = rf.load_dataset("Pastes")
casks = rf.Model("strength ~ 1 + (1 | sample)", pastes).fit("ml")
batches = rf.Model("strength ~ 1 + (1 | batch) + (1 | sample)", pastes).fit("ml")
for test in ("chi2", "mixture", "f", "bootstrap"):
    table = rf.anova(casks, batches, test=test, seed=1).to_frame()
    print(f"{test:>10}: p = {table['p_value'].iloc[-1]:.3f}")

# 4. How sure are the estimates themselves?
reml = model.fit()
print()
print(reml.summary(df="kenward-roger"), end="\n\n")
print(reml.confint("profile").round(2), end="\n\n")
print(reml.bootstrap(2000, seed=1), end="\n\n")
print(reml.icc(), end="\n\n")
print(reml.r2(), end="\n\n")

for name, axes in {
    "comparing-prior-scales.png": structures.plot_sensitivity(),
    "comparing-subjects.png": structures.plot_groups("(Days || Subject)", "(1 | Subject)"),
}.items():
    axes.figure.savefig(folder / name, dpi=150)
    print(f"wrote {folder / name}")
