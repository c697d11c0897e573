"""Prior distributions, the named sets of priors, and which parameter gets which prior.

What this front exports is public as `ranef.priors`.
"""

from ranef.priors.assignment import PriorRow, Priors, TermPriors, resolve
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
from ranef.priors.user_priors import PriorSetting

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
    "PriorRow",
    "PriorSetting",
    "Priors",
    "Relative",
    "StudentT",
    "TermPriors",
    "Uniform",
    "resolve",
]
