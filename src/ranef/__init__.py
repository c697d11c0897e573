"""Hierarchical models: one lme4-style formula, REML, ML and Bayesian fits with the same names.

Everything is loaded when it is first used, so that `import ranef` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ranef import priors
    from ranef.bootstrap import Bootstrap
    from ranef.comparison import compare, compare_structures
    from ranef.comparisontable import Comparison
    from ranef.curves import Curve
    from ranef.datasets import list_datasets, load_dataset
    from ranef.errors import (
        Convergence,
        ConvergenceWarning,
        DataError,
        DataWarning,
        FitError,
        FormulaError,
        RanefError,
        RanefWarning,
    )
    from ranef.estimates import MarginalLikelihood
    from ranef.families import Family, Link
    from ranef.model import Model, fit
    from ranef.nestedtable import Anova
    from ranef.nestedtests import anova
    from ranef.pointfit import PointFit
    from ranef.posteriorfit import PosteriorFit
    from ranef.profiling import Profile
    from ranef.quadraturefit import QuadratureFit
    from ranef.sidebyside import side_by_side
    from ranef.tables import VarCorr

__version__ = "0.1.0"

_HOMES = {
    "Anova": "nestedtable",
    "Bootstrap": "bootstrap",
    "Comparison": "comparisontable",
    "Convergence": "errors",
    "ConvergenceWarning": "errors",
    "Curve": "curves",
    "DataError": "errors",
    "DataWarning": "errors",
    "Family": "families",
    "FitError": "errors",
    "FormulaError": "errors",
    "Link": "families",
    "MarginalLikelihood": "estimates",
    "Model": "model",
    "PointFit": "pointfit",
    "PosteriorFit": "posteriorfit",
    "Profile": "profiling",
    "QuadratureFit": "quadraturefit",
    "RanefError": "errors",
    "RanefWarning": "errors",
    "VarCorr": "tables",
    "anova": "nestedtests",
    "compare": "comparison",
    "compare_structures": "comparison",
    "fit": "model",
    "list_datasets": "datasets",
    "load_dataset": "datasets",
    "side_by_side": "sidebyside",
}

__all__ = [
    "Anova",
    "Bootstrap",
    "Comparison",
    "Convergence",
    "ConvergenceWarning",
    "Curve",
    "DataError",
    "DataWarning",
    "Family",
    "FitError",
    "FormulaError",
    "Link",
    "MarginalLikelihood",
    "Model",
    "PointFit",
    "PosteriorFit",
    "Profile",
    "QuadratureFit",
    "RanefError",
    "RanefWarning",
    "VarCorr",
    "anova",
    "compare",
    "compare_structures",
    "fit",
    "links",
    "list_datasets",
    "load_dataset",
    "priors",
    "side_by_side",
]


def __getattr__(name: str) -> Any:
    if name in ("links", "priors"):
        return import_module(f"ranef.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'ranef' has no attribute {name!r}")
    value = getattr(import_module(f"ranef.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
