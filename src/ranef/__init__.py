"""Hierarchical models: one lme4-style formula, REML, ML and Bayesian fits with the same names.

Everything is loaded when it is first used, so that `import ranef` costs nothing, and a fit what it
needs: a module that is imported as one, `from ranef.plots import residuals`, runs when something of
it is asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ranef import priors
    from ranef.comparison.anova import Anova, anova
    from ranef.comparison.compare import compare, compare_structures
    from ranef.comparison.comparison_table import Comparison
    from ranef.datasets import describe_dataset, list_datasets, load_dataset
    from ranef.effects.counterfactuals import comparisons
    from ranef.effects.effect_plots import plot_effects
    from ranef.effects.hypotheses import hypothesis
    from ranef.effects.joint_tests import joint_tests
    from ranef.effects.marginal_means import contrasts, means
    from ranef.effects.marginaleffects_adapter import to_marginaleffects
    from ranef.effects.slopes import slopes
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
    from ranef.families.family import Family
    from ranef.families.links import Link
    from ranef.fits.bootstrap_table import Bootstrap
    from ranef.fits.fit import side_by_side
    from ranef.fits.point import PointFit
    from ranef.fits.posterior import PosteriorFit, QuadratureFit
    from ranef.fits.tables import VarCorr
    from ranef.likelihood.profile.likelihood_profile import Profile
    from ranef.model.model import Model, fit, load
    from ranef.model.summaries.data_summary import DataSummary
    from ranef.model.summaries.summarize import summarize
    from ranef.planning.power import power
    from ranef.planning.power_table import Power
    from ranef.planning.simulation import simulate
    from ranef.posterior.marginal_likelihood import MarginalLikelihood
    from ranef.posterior.quadrature.marginal_densities import Curve


class _WhenUsed:
    """Finds the modules of the package, which then run when they are first used."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, _: object = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name.startswith("ranef.") else None
        if spec is not None and spec.loader and spec.submodule_search_locations is None:
            spec.loader = LazyLoader(spec.loader)
        return spec


sys.meta_path.insert(0, _WhenUsed)

__version__: str  # of the installed package, read when it is asked for

_HOMES = {
    "Anova": "comparison.anova",
    "Bootstrap": "fits.bootstrap_table",
    "Comparison": "comparison.comparison_table",
    "Convergence": "errors",
    "ConvergenceWarning": "errors",
    "Curve": "posterior.quadrature.marginal_densities",
    "DataError": "errors",
    "DataWarning": "errors",
    "Family": "families.family",
    "FitError": "errors",
    "FormulaError": "errors",
    "Link": "families.links",
    "MarginalLikelihood": "posterior.marginal_likelihood",
    "Model": "model.model",
    "PointFit": "fits.point",
    "PosteriorFit": "fits.posterior",
    "Power": "planning.power_table",
    "Profile": "likelihood.profile.likelihood_profile",
    "QuadratureFit": "fits.posterior",
    "RanefError": "errors",
    "RanefWarning": "errors",
    "DataSummary": "model.summaries.data_summary",
    "VarCorr": "fits.tables",
    "anova": "comparison.anova",
    "compare": "comparison.compare",
    "compare_structures": "comparison.compare",
    "comparisons": "effects.counterfactuals",
    "contrasts": "effects.marginal_means",
    "describe_dataset": "datasets",
    "fit": "model.model",
    "hypothesis": "effects.hypotheses",
    "joint_tests": "effects.joint_tests",
    "list_datasets": "datasets",
    "load": "model.model",
    "load_dataset": "datasets",
    "means": "effects.marginal_means",
    "plot_effects": "effects.effect_plots",
    "power": "planning.power",
    "side_by_side": "fits.fit",
    "simulate": "planning.simulation",
    "slopes": "effects.slopes",
    "summarize": "model.summaries.summarize",
    "to_marginaleffects": "effects.marginaleffects_adapter",
}
_ROOMS = {"links": "families.links", "priors": "priors"}

__all__ = sorted([*_HOMES, *_ROOMS])  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("ranef")
    if name in _ROOMS:
        return import_module(f"ranef.{_ROOMS[name]}")
    if name.startswith("_"):
        raise AttributeError(f"module 'ranef' has no attribute {name!r}")
    other_names = import_module("ranef.fits.other_names")
    if name not in _HOMES:
        raise other_names.missing_in_package(name)
    value = other_names.leading_on(getattr(import_module(f"ranef.{_HOMES[name]}"), name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
