"""The models of the lme4 workshop of 2008: the deviances that its slides print, and ours.

Writes `workshop-penicillin.png`, `workshop-sleepstudy.png` and `workshop-districts.png` into the
folder given as the first argument, by default the current one.
"""

import sys
from pathlib import Path

import ranef as rf

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
folder.mkdir(parents=True, exist_ok=True)

# What is printed: the REML criterion, or for a binary response the deviance.
printed = {
    ("Dyestuff", "Yield ~ 1 + (1 | Batch)"): 319.7,
    ("Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)"): 330.9,
    ("Pastes", "strength ~ 1 + (1 | batch) + (1 | sample)"): 247,
    ("Pastes", "strength ~ 1 + (1 | sample)"): 247.6,
    ("sleepstudy", "Reaction ~ Days + (Days | Subject)"): 1744,
    ("sleepstudy", "Reaction ~ Days + (Days || Subject)"): 1744,
    ("ScotsSec", "attain ~ verbal + sex + (1 | primary) + (verbal | second)"): 14859,
    ("ScotsSec", "attain ~ verbal + sex + (1 | primary) + (1 | second)"): 14860,
    ("Contraception", "use ~ age + I(age^2) + urban + livch + (1 | district)"): 2373,
    ("Contraception", "use ~ age*children + I(age^2) + urban + (1 | district)"): 2365,
    ("Contraception", "use ~ age*children + I(age^2) + urban + (urban | district)"): 2354,
}

fits = {}
print("printed     ours")
for (name, formula), criterion in printed.items():
    data = rf.load_dataset(name)
    if name == "Contraception":
        data["children"] = (data["livch"] != "0").map({False: "none", True: "some"})
    family = "binomial" if name == "Contraception" else "gaussian"
    fits[formula] = fit = rf.fit(formula, data, family=family)
    print(f"{criterion:7} {fit.objective:8.1f}  {formula}")
    assert abs(fit.objective - criterion) <= (0.05 if criterion % 1 else 0.5)

# Crossed and nested: variances of plates, samples, batches
print()
print(fits["diameter ~ 1 + (1 | plate) + (1 | sample)"].varcorr(), end="\n\n")
print(fits["strength ~ 1 + (1 | batch) + (1 | sample)"].varcorr(), end="\n\n")

# Are batches needed, beyond their casks? Chi-squared says 0.52, and is far too large.
pastes = rf.load_dataset("Pastes")
casks = rf.fit("strength ~ 1 + (1 | sample)", pastes, "ml")
batches = rf.fit("strength ~ 1 + (1 | batch) + (1 | sample)", pastes, "ml")
for test in ("chi2", "mixture", "f"):
    p = rf.anova(casks, batches, test=test).to_frame()["p_value"].iloc[-1]
    print(f"{test:>8}: p = {p:.3f}")

penicillin = fits["diameter ~ 1 + (1 | plate) + (1 | sample)"]
sleep = fits["Reaction ~ Days + (Days || Subject)"]
districts = fits["use ~ age*children + I(age^2) + urban + (urban | district)"]
for name, axes in {
    "workshop-penicillin.png": penicillin.plot_caterpillar(sharex=True)[0],
    "workshop-sleepstudy.png": sleep.plot_shrinkage(),
    "workshop-districts.png": districts.plot_pairs()[0],
}.items():
    axes.figure.savefig(folder / name, dpi=150)
    print(f"wrote {folder / name}")
