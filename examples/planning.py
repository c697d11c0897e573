"""How many people, and how many days? Power by simulation, from a pilot study and without one.

Writes `planning-power.png` into the folder given as the first argument, by default the current one.
"""

import sys
from pathlib import Path

import pandas as pd

import ranef as rf

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
folder.mkdir(parents=True, exist_ok=True)
formula = "Reaction ~ Days + (Days | Subject)"

# 1. Nothing is measured yet: the rows of the study, and all parameters as they might be.
design = pd.DataFrame(
    [(person, day) for person in range(12) for day in range(5)], columns=["Subject", "Days"]
)
truth = {
    "beta": {"Intercept": 250, "Days": 5},
    "theta": {"sd_Subject[Intercept]": 25, "sd_Subject[Days]": 6},
    "sigma": 25,
}
print(rf.fit(formula, rf.simulate(formula, design, **truth, seed=1, frame=True)), end="\n\n")
print(rf.power(formula, design=design, **truth, n=1000, seed=1), end="\n\n")

# 2. There is a pilot: its rows are the pattern, its variances the truth, and 5 ms a day matter.
pilot = rf.fit(formula, rf.load_dataset("sleepstudy"))
found = rf.power(
    pilot, "Days", groups=[6, 12, 18, 24], rows=[5, 10], beta={"Days": 5}, n=500, seed=1
)
print(found, end="\n\n")
print(found.smallest(0.8), end="\n\n")

# 3. Would the study see that people differ in how fast they tire, if they did by 3 ms a day?
print(
    rf.power(
        pilot,
        "sd_Subject[Days]",
        theta={"sd_Subject[Days]": 3},
        groups=[12, 18, 24],
        n=500,
        seed=1,
    )
)

found.plot(target=0.8).figure.savefig(folder / "planning-power.png", dpi=150)
print(f"wrote {folder / 'planning-power.png'}")
