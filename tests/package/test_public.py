"""The public names, and what importing them costs."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys

import pytest

import ranef

NAMES = [
    "Anova",
    "Bootstrap",
    "Comparison",
    "Convergence",
    "ConvergenceWarning",
    "Curve",
    "DataError",
    "DataSummary",
    "DataWarning",
    "Family",
    "FitError",
    "FormulaError",
    "Link",
    "MarginalLikelihood",
    "Model",
    "PointFit",
    "PosteriorFit",
    "Power",
    "Profile",
    "QuadratureFit",
    "RanefError",
    "RanefWarning",
    "VarCorr",
    "anova",
    "compare",
    "compare_structures",
    "comparisons",
    "contrasts",
    "describe_dataset",
    "fit",
    "hypothesis",
    "joint_tests",
    "links",
    "list_datasets",
    "load",
    "load_dataset",
    "means",
    "plot_effects",
    "power",
    "priors",
    "side_by_side",
    "simulate",
    "slopes",
    "summarize",
    "to_marginaleffects",
]
HEAVY = ["arviz", "formulaic", "matplotlib", "narwhals", "numba", "nutpie", "pymc", "pytensor"]
FIT = """
import sys
import ranef as rf
assert not {"numpy", "pandas", "scipy"} & set(sys.modules), "import ranef loads nothing"
fit = rf.fit("Reaction ~ Days + (1 | Subject)", rf.load_dataset("sleepstudy"), "METHOD")
str(fit), fit.ranef_table(), fit.shrinkage_table()
seldom = {"scipy.integrate", "scipy.ndimage", "scipy.stats"} & set(sys.modules)
assert not seldom, f"{seldom} are loaded by what needs them"
print(sorted({name.split(".")[0] for name in sys.modules}))
"""

MODULES = """
import sys
import types
import ranef as rf
rf.fit("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))
print(*(name for name, module in sys.modules.items() if type(module) is types.ModuleType))
"""


def run(code):
    """Return what a process prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_public_names():
    assert ranef.__all__ == NAMES
    assert dir(ranef) == NAMES
    for name in NAMES:
        value = getattr(ranef, name)
        assert value is getattr(ranef, name)
        assert value.__name__.split(".")[-1] == name
        assert value.__doc__


def test_type_checkers_see_the_names_where_they_are():
    tree = ast.parse(pathlib.Path(ranef.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module.removeprefix("ranef.")
        for node in block.body
        for alias in node.names
        if node.module != "ranef"
    }
    assert seen == ranef._HOMES


def test_a_star_imports_them():
    found = {}
    exec("from ranef import *", found)
    assert set(NAMES) <= set(found)


def test_what_is_not_there():
    assert not hasattr(ranef, "lmer")
    assert not hasattr(ranef, "__wrapped__")


@pytest.mark.parametrize("method", ["reml", "map", "quadrature"])
def test_a_fit_that_does_not_draw_loads_no_heavy_library(method):
    printed = run(FIT.replace("METHOD", method))
    assert "'ranef'" in printed
    assert not [name for name in HEAVY if f"'{name}'" in printed]


def test_a_point_estimate_runs_no_module_of_posteriors_and_pictures():
    names = run(MODULES).split()
    assert "ranef.likelihood.linear.reml" in names
    rooms = (
        "generalized",
        "bootstrap",
        "profile",
        "quadrature",
        "sampling",
        "leave_one_out",
        "by_group",
    )
    modules = [name for name in names if name.startswith("ranef.")]
    assert not [name for name in modules if name.rpartition(".")[0].endswith(rooms)]
