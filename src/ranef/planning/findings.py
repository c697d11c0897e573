"""What a planned study is to find, by name, and how that is tested."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from ranef.arguments import check_choice
from ranef.design.design import Design, RandomTerm
from ranef.design.labels import sd_name
from ranef.errors import FitError, listed, suggestion
from ranef.formula.terms import read_formula
from ranef.formula.updates import updated
from ranef.planning.planned_rows import Plan

WALD, RATIOS = ("t", "F", "z"), ("chi2", "mixture", "bootstrap")
TESTS = (*WALD, *RATIOS)


@dataclass(frozen=True)
class Sought:
    """Something that is to be found.

    Attributes
    ----------
    label : str
    test : str
    places : tuple of int
        Of the fixed effects that are zero in the smaller model, if it has the same random ones.
    smaller : str
        The formula of the smaller model otherwise.
    """

    label: str
    test: str
    places: tuple[int, ...] = ()
    smaller: str = ""


def wanted(design: Design, plan: Plan, find: object, test: str | None) -> list[Sought]:
    """Return what is to be found, by default every fixed effect but the intercept.

    Parameters
    ----------
    design : Design
        Of the plan.
    plan : Plan
    find : str or sequence of str, optional
        Fixed effects, terms, standard deviations, or smaller models.
    test : str, optional

    Raises
    ------
    FitError
        If there is nothing of that name, or the test is not for it.
    """
    if test is not None:
        check_choice("test", test, TESTS)
    if find is None:
        find = [name for name in design.fixed if name != "Intercept"] or list(design.fixed)
    names = list(find) if isinstance(find, Iterable) and not isinstance(find, str) else [find]
    if not names:
        raise FitError("find= is empty: name what is to be found.")
    return [_sought(design, plan, name, test) for name in names]


def _sought(design: Design, plan: Plan, name: Any, test: str | None) -> Sought:
    fixed = _fixed_effects(design, plan)
    if name in fixed:
        return Sought(name, _of_fixed(plan, len(fixed[name]), test), fixed[name])
    if test in WALD:
        raise FitError(f'test="{test}" is for fixed effects: use {listed(RATIOS, "or")}.')
    sds = {sd_name(t, j): (t, j) for t in design.terms for j in range(t.n_coefs)}
    if name in sds:
        return Sought(name, test or _of_random(plan), smaller=_without_sd(design, plan, *sds[name]))
    if "~" in str(name):
        smaller = updated(read_formula(plan.formula, plan.functions or ()), name)
        same = plan.design(smaller).fixed == design.fixed
        default = _of_random(plan) if same else "chi2"
        return Sought(f"against {smaller}", test or default, smaller=smaller)
    hint = suggestion(str(name), [*fixed, *sds])
    raise FitError(f"there is no effect {name!r} to be found. {hint}")


def _fixed_effects(design: Design, plan: Plan) -> dict[str, tuple[int, ...]]:
    """Return the places of the columns of every term, and of every column, by name."""
    terms = read_formula(plan.formula, plan.functions or ()).fixed
    places: dict[str, tuple[int, ...]] = {}
    for j, origin in enumerate(design.origins):
        if design.fixed[j] == "Intercept":
            continue
        name = str(terms[origin.term])
        places[name] = (*places.get(name, ()), j)
    return places | {name: (j,) for j, name in enumerate(design.fixed)}


def _of_fixed(plan: Plan, n_columns: int, test: str | None) -> str:
    """Return the test of one fixed effect, or of several together."""
    if not plan.family.is_linear:
        if test in ("t", "F"):
            others = listed(("z", *RATIOS), "or")
            raise FitError(
                f'test="{test}" needs degrees of freedom, which a generalised model does not '
                f"have: use {others}."
            )
        return test or "chi2"
    return ("t" if n_columns == 1 else "F") if test in (None, "t", "F") else str(test)


def _of_random(plan: Plan) -> str:
    return "bootstrap" if plan.family.is_linear else "mixture"


def _without_sd(design: Design, plan: Plan, term: RandomTerm, place: int) -> str:
    """Return the formula without one coefficient of a random-effects term."""
    formula, functions = read_formula(plan.formula, plan.functions or ()), plan.functions or ()
    part = next(part for part, _ in design.recipe.random if str(part) == term.text)
    if term.n_coefs != len(part.terms):
        raise FitError(
            f"the coefficients of {term.text} are levels of a factor: compare the models, with "
            'find=". ~ . - ..." and the smaller structure.'
        )
    kept = tuple(one for j, one in enumerate(part.terms) if j != place)
    change = f". ~ . - {part}" + (f" + {replace(part, terms=kept)}" if kept else "")
    return updated(formula, change, functions)
