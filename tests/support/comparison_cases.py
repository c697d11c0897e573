"""What is compared of sleepstudy and of the yields, and the answers of other programs."""

from functools import cache

import ranef as rf

P = rf.priors
DYESTUFF = "Yield ~ 1 + (1 | Batch)"


TAU = P.HalfStudentT(3, 59.3)


PRIORS = {
    "Intercept": P.Normal(250, 100),
    "Days": P.Normal(0, 20),
    "sigma": TAU,
    "sd": TAU,
    "corr": P.LKJ(2),
}


@cache
def sleep():
    """Return the largest model of the four."""
    data = rf.load_dataset("sleepstudy")
    return rf.Model("Reaction ~ Days + (Days | Subject)", data, priors=PRIORS)


@cache
def structures():
    """Return the comparison of all four."""
    return rf.compare_structures(sleep(), seed=1, progressbar=False)


def dyestuff():
    return rf.load_dataset("Dyestuff")


@cache
def fitted(formula=DYESTUFF, rows=30, family="gaussian", **priors):
    """Return a quick posterior fit."""
    model = rf.Model(formula, dyestuff().head(rows), family=family, priors=dict(priors))
    return model.fit("laplace", draws=400, seed=1)


@cache
def yields(formula=DYESTUFF, method="quadrature", **priors):
    """Return a fit of the smallest data set."""
    options = {} if method in ("reml", "ml", "map") else {"seed": 1}
    return rf.Model(formula, dyestuff(), priors=dict(priors)).fit(method, **options)


@cache
def two():
    """Return a small comparison."""
    return rf.compare({"batches": yields(), "none": yields("Yield ~ 1")}, seed=1)
