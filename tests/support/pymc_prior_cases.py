"""The priors of a PyMC model, read back from its random variables."""

from __future__ import annotations

import re

import numpy as np
from pymc.pytensorf import constant_fold
from pytensor.graph.basic import Constant as Number

from ranef.posterior.sampling.pymc_hierarchical import FAMILY_PARAMETERS
from ranef.priors import distributions
from ranef.priors.distributions import (
    LKJ,
    Constant,
    Flat,
    Gamma,
    HalfNormal,
    InverseGamma,
    Relative,
)
from ranef.priors.random_variables import KINDS_OF_PRIOR

PARAMETER = re.compile(
    rf"(?:(?:{KINDS_OF_PRIOR})_)?(?P<relative>relative_)?(?:at_mean_|nearest_)?"
    r"(?:free_)?(?P<parameter>beta|sigma|sd_.*|partial_corr_.*)"
)
# Where PyMC's names and numbers are not those of the record; a Beta variable stands for an LKJ
FROM_PYMC = {
    "HalfNormal": lambda _, sigma: HalfNormal(sigma),
    "Gamma": lambda alpha, scale: Gamma(alpha, 1 / scale),
    "InvGamma": InverseGamma,
    "Beta": lambda alpha, _: LKJ(alpha),
}


def priors_in(model):
    """Return parameter, coefficient and prior, in words, of all random variables that have one."""
    names = {v.name for v in (*model.free_RVs, *filter(is_constant, model.deterministics))}
    variables = [variable for name, variable in model.named_vars.items() if name in names]
    rows = [row for variable in variables for row in rows_of(model, variable)]
    parameters = list(dict.fromkeys(parameter for parameter, *_ in rows))

    def place(row):
        parameter, coef, _ = row
        dims = model.named_vars_to_dims.get(parameter)
        in_order = list(model.coords[dims[0]]).index(coef) if dims and coef else 0
        return parameters.index(parameter), in_order

    return sorted(rows, key=place)


def rows_of(model, rv):
    if rv.name in model.coords.get(FAMILY_PARAMETERS, ()):
        return [(rv.name, "", str(records(rv)[-1]))]
    match = PARAMETER.fullmatch(rv.name)
    if match is None:
        return []
    parameter = match["parameter"].removeprefix("partial_")
    if parameter.startswith("corr_"):
        return [(parameter, "", str(records(rv)[-1]))]
    dims = model.named_vars_to_dims.get(rv.name)
    coefs = model.coords[dims[0]] if dims else ("",)
    priors = records(rv, len(coefs))
    priors = map(Relative, priors) if match["relative"] else priors
    return [(parameter, coef, str(one)) for coef, one in zip(coefs, priors, strict=True)]


def is_constant(variable):
    """Whether a deterministic variable is a constant, and no function of others."""
    inputs = variable.owner.inputs if variable.owner else [variable]
    return len(inputs) == 1 and isinstance(inputs[0], Number)


def records(rv, n=1):
    """Return the prior record of each element of a variable, from its distribution or value."""
    name = type(rv.owner.op).__name__.removesuffix("RV") if rv.owner else ""
    if name in ("Flat", "HalfFlat"):
        return [Flat()] * n
    constant = not hasattr(rv.owner and rv.owner.op, "dist_params")
    parameters = (rv,) if constant else rv.owner.op.dist_params(rv.owner)
    numbers = [np.atleast_1d(x) for x in constant_fold(tuple(parameters))]
    rows = zip(*(np.broadcast_to(x, max(n, x.size)).tolist() for x in numbers), strict=True)
    make = Constant if constant else FROM_PYMC.get(name) or getattr(distributions, name)
    return [make(*row) for row in rows]
