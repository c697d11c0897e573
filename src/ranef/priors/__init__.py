"""Prior distributions, the named sets of priors, and which parameter gets which prior.

The distributions are public as `ranef.priors`.
"""

from ranef.priors.distributions import (
    LKJ,
    Constant,
    Exponential,
    Flat,
    Gamma,
    HalfCauchy,
    HalfNormal,
    HalfStudentT,
    InverseGamma,
    LogNormal,
    Normal,
    Prior,
    Relative,
    StudentT,
    Uniform,
)

__all__ = [
    "LKJ",
    "Constant",
    "Exponential",
    "Flat",
    "Gamma",
    "HalfCauchy",
    "HalfNormal",
    "HalfStudentT",
    "InverseGamma",
    "LogNormal",
    "Normal",
    "Prior",
    "Relative",
    "StudentT",
    "Uniform",
]
