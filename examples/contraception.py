"""A binary response on real data: Laplace's approximation, quadrature and MCMC, side by side.

Writes `contraception-caterpillar.png` into the folder given as the first argument, by default the
current one.
"""

import sys
from pathlib import Path

import ranef as rf

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
folder.mkdir(parents=True, exist_ok=True)

# Use of contraception by 1,934 women in 60 districts of Bangladesh (1988-89 Fertility Survey)
survey = rf.load_dataset("Contraception")
survey["children"] = (survey["livch"] != "0").map({False: "none", True: "some"})
formula = "use ~ age*children + I(age^2) + urban + (urban | district)"
model = rf.Model(formula, survey, family="binomial")
print(model, end="\n\n")

laplace = model.fit()
print(laplace, end="\n\n")

exact = model.fit(n_agq=7)  # 7 x 7 points in each district
posterior = model.fit("mcmc", seed=1, progressbar=sys.stderr.isatty())
print(posterior, end="\n\n")

print("Maximum likelihood beside posterior means, with 95 % HPD intervals")
fits = {"Laplace": laplace, "quadrature": exact, "NUTS": posterior}
print(rf.side_by_side(fits).join(posterior.hdi()).round(3).to_string(), end="\n\n")

women = {"urban": ["N", "N", "Y", "Y"], "children": ["none", "some"] * 2, "age": [0.0] * 4}
chances = laplace.predict(women, groups="population")
print("The chance that a woman of mean age uses contraception, in a typical district")
for urban, children, chance in zip(women["urban"], women["children"], chances, strict=True):
    print(f"  {'town' if urban == 'Y' else 'country':8} {children:4} children  {chance:.2f}")

path = folder / "contraception-caterpillar.png"
posterior.plot_caterpillar()[0].figure.savefig(path, dpi=150)
print(f"\nwrote {path}")
