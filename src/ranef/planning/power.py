"""What a planned study can find: `rf.power`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ranef._typing import Array, Seed
from ranef.arguments import check_choice, check_counts, check_known, check_seed
from ranef.comparison.null_distributions import binomial_interval
from ranef.design import identifiability
from ranef.design.design import Design
from ranef.design.labels import sd_name
from ranef.errors import FitError, listed, probability, suggestion
from ranef.families.family import Family
from ranef.families.links import Link
from ranef.fits.fit import Fit
from ranef.formula.terms import read_formula
from ranef.formula.updates import updated
from ranef.likelihood.bootstrap.simulated_responses import entropy_of
from ranef.planning.planned_rows import Plan, sized
from ranef.planning.power_table import Power
from ranef.planning.rejections import Found, Replications, ratio_tests, t_tests
from ranef.planning.stated_parameters import Truth, stated
from ranef.progress import mapped

TESTS = ("t", "z", "chi2", "mixture", "bootstrap")


def power(
    study: Fit | str,
    find: str | Sequence[str] | None = None,
    *,
    groups: Mapping[str, Iterable[int]] | Iterable[int] | int | None = None,
    rows: Iterable[int] | int | None = None,
    design: object = None,
    beta: ArrayLike | Mapping[str, float] | None = None,
    theta: ArrayLike | Mapping[str, Any] | None = None,
    sigma: float | None = None,
    parameters: Mapping[str, float] | None = None,
    family: str | Family = "gaussian",
    link: str | Link | None = None,
    weights: str | None = None,
    offset: str | None = None,
    functions: Mapping[str, Callable[..., Any]] | None = None,
    test: str | None = None,
    alpha: float = 0.05,
    n: int = 1000,
    seed: Seed = None,
    executor: Executor | None = None,
) -> Power:
    """Return in how many simulated studies an effect is found, by the size of the study.

    Parameters
    ----------
    study : PointFit, PosteriorFit or str
        A pilot study, whose rows are the pattern and whose estimates are the true values but for
        those given; or a formula, with `design` and all parameters.
    find : str or sequence of str, optional
        What is to be found: fixed effects by name, all but the intercept by default; a standard
        deviation of random effects, `sd_Subject[Days]`; or a choice between structures, the
        smaller model as a formula in which `.` stands for that side of the larger one's,
        `. ~ . - (Days | Subject) + (1 | Subject)`.
    groups : sequence of int, int, or mapping of str to these, optional
        Numbers of groups; by grouping factor where there are several. Groups are copied, or a
        part of them taken that is spread evenly over their predictors.
    rows : sequence of int or int, optional
        Numbers of rows of each group: its first ones, or all again and again.
    design : DataFrame, optional
        The rows of the study, without a response.
    beta, theta, sigma, parameters
        As of `simulate`. Of a pilot study the fixed effects and standard deviations that are
        named replace its own: `beta={"Days": 5}` for the smallest effect that matters.
    family, link, weights, offset, functions
        As of `Model`, for a formula.
    test : {"t", "z", "chi2", "mixture", "bootstrap"}, optional
        How it is tested. "t" and "z": the estimate over its standard error by REML, against the t
        distribution with Satterthwaite's degrees of freedom, or the normal one. All others are
        (restricted) likelihood ratios, against chi-squared; against its mixture where variances
        are zero; or against ratios that are simulated from the smaller model. By default "t", or
        "chi2" of generalised models, for fixed effects; "bootstrap", or "mixture", for what is
        random.
    alpha : float
        The level of the test.
    n : int
        Number of studies of each size.
    seed : int, numpy Generator or SeedSequence, optional
        The same seed gives the same studies, whatever the number of workers.
    executor : concurrent.futures.Executor, optional
        Takes the sizes in parallel.

    Returns
    -------
    Power
        Prints itself; `.to_frame()`, `.plot()` and `.smallest(0.8)`.

    Raises
    ------
    FitError
        If a parameter is missing, or there is nothing of that name to be found.
    DataError
        If a study of some size cannot be fitted, as one of a single group.

    Notes
    -----
    Of a linear model cross-products are simulated and not rows, and all studies of a size are
    fitted together. Degrees of freedom are computed of the studies in which they can matter.

    Source: Green & MacLeod (2016), *Methods in Ecology and Evolution* 7, 493-498 (simr).

    Examples
    --------
    >>> import ranef as rf
    >>> pilot = rf.fit("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))
    >>> found = rf.power(pilot, "Days", groups=[6, 12], beta={"Days": 6}, n=400, seed=1)
    >>> found.to_frame()[["Subject", "power"]].round(1).to_numpy().tolist()
    [[6.0, 0.5], [12.0, 0.8]]
    """
    check_counts(n=n)
    seed = check_seed(seed)
    level = probability(alpha)
    own = dict(parameters or {}) | ({} if sigma is None else {"sigma": sigma})
    if isinstance(study, Fit):
        plan, full = _of_pilot(study)
        truth = _pilots(study, full, beta, theta, own)
    elif isinstance(study, str):
        if design is None:
            raise FitError("design is missing: give the rows of the study, without a response.")
        options = {"link": link, "weights": weights, "offset": offset, "functions": functions}
        plan = Plan.of(study, design, family, **options)
        full = plan.design()
        truth = stated(full, plan.family, beta, theta, own)
    else:
        raise FitError(f"study is a fit or a formula, got {type(study).__name__}.")
    tasks = _wanted(full, plan, find, test)
    points = sized(full, plan.frame, groups, rows)
    entropy = entropy_of(seed)
    run = partial(_at_size, _Plans(plan, full.fixed, truth, tasks, level))
    studies = [Replications(n, entropy, 2 * n * i) for i in range(len(points))]
    frames = [frame for _, frame in points]
    results = mapped(executor, run, frames, studies)
    table = pd.DataFrame(
        [
            {**size, "n_obs": len(frame), "found": task.label, "test": task.test, **numbers}
            for (size, frame), found in zip(points, results, strict=True)
            for task, numbers in zip(tasks, found, strict=True)
        ]
    )
    return Power(table, tuple(points[0][0]), plan.formula, tuple(truth.words(full)), level, entropy)


# ------------------------------------------------------------------------------ pilot studies


def _of_pilot(fit: Fit) -> tuple[Plan, Design]:
    """Return the plan of a fit's rows, and its design as planned."""
    if fit.knows_sigma:
        raise FitError(
            "the pilot study has known standard errors of its rows (se=), and simulated studies "
            "estimate sigma: give a formula with design=, weights= and sigma=."
        )
    rows, design = fit.design.rows.data, fit.design
    for name, values in (("weights", rows.weights), ("offset", rows.offset)):
        if values is not None and name in rows.columns:
            raise FitError(f"a column of the pilot study is called `{name}`: rename it.")
    present = {"weights": rows.weights, "offset": rows.offset}
    named = {name: name for name, values in present.items() if values is not None}
    plan = Plan(
        design.formula.text,
        rows.frame(**named),
        fit.family,
        named.get("weights"),
        named.get("offset"),
        design.recipe.functions,
    )
    return plan, plan.design()


def _pilots(
    fit: Fit,
    design: Design,
    beta: ArrayLike | Mapping[str, float] | None,
    theta: ArrayLike | Mapping[str, Any] | None,
    parameters: Mapping[str, float],
) -> Truth:
    """Return the estimates of a pilot study, but for what is given."""
    own = dict(fit.parameters) | dict(parameters)
    fixed: Any = fit.fixef()[list(design.fixed)].to_dict()
    if isinstance(beta, Mapping | pd.Series):
        check_known(beta, fixed, lambda name: f"beta: there is no fixed effect `{name}`.")
        fixed |= dict(beta)
    elif beta is not None:
        fixed = beta
    names = [sd_name(term, j) for term in design.terms for j in range(term.n_coefs)]
    estimates = fit.estimates()
    random: Any = {name: estimates[name] for name in estimates.index if name in names}
    random |= {
        name: float(np.nan_to_num(estimates[name]))
        for name in estimates.index
        if str(name).startswith("corr_") and name not in fixed
    }
    if isinstance(theta, Mapping | pd.Series):
        random |= dict(theta)
    elif theta is not None:
        random = theta
    return stated(design, fit.family, fixed, random if names else None, own)


# ------------------------------------------------------------------------------- what is tested


@dataclass(frozen=True)
class Task:
    """Something that is to be found.

    Attributes
    ----------
    label : str
    test : str
    place : int
        Of a fixed effect; -1 where there is a smaller model instead.
    smaller : str
        The formula of the smaller model.
    """

    label: str
    test: str
    place: int = -1
    smaller: str = ""


def _wanted(
    design: Design, plan: Plan, find: str | Sequence[str] | None, test: str | None
) -> list[Task]:
    if test is not None:
        check_choice("test", test, TESTS)
    if find is None:
        find = [name for name in design.fixed if name != "Intercept"] or list(design.fixed)
    wanted = [find] if isinstance(find, str) else list(find)
    if not wanted:
        raise FitError("find= is empty: name what is to be found.")
    return [_task(design, plan, name, test) for name in wanted]


def _task(design: Design, plan: Plan, name: str, test: str | None) -> Task:
    is_linear = plan.family.is_linear
    sds = {sd_name(t, j): (t, j) for t in design.terms for j in range(t.n_coefs)}
    if name in design.fixed and (test or "t") in ("t", "z") and is_linear:
        return Task(name, test or "t", design.fixed.index(name))
    if name in design.fixed:
        _refuse_t(test, "a generalised model, whose effects are tested by likelihood ratios")
        return Task(name, test or "chi2", smaller=_without_fixed(design, plan, name))
    if name in sds:
        _refuse_t(test, "fixed effects")
        return Task(name, test or _of_random(plan), smaller=_without_sd(design, plan, *sds[name]))
    if "~" in str(name):
        _refuse_t(test, "single fixed effects")
        smaller = updated(read_formula(plan.formula, plan.functions or ()), name)
        same = plan.design(smaller).fixed == design.fixed
        default = _of_random(plan) if same else "chi2"
        return Task(f"against {smaller}", test or default, smaller=smaller)
    known = [*design.fixed, *sds]
    raise FitError(f"there is no effect {name!r} to be found. {suggestion(str(name), known)}")


def _of_random(plan: Plan) -> str:
    return "bootstrap" if plan.family.is_linear else "mixture"


def _refuse_t(test: str | None, what: str) -> None:
    if test in ("t", "z"):
        others = listed([one for one in TESTS if one not in ("t", "z")], "or")
        raise FitError(f'test="{test}" is not for {what}: use {others}.')


def _without_fixed(design: Design, plan: Plan, name: str) -> str:
    """Return the formula without the term of a fixed effect that is one column."""
    formula = read_formula(plan.formula, plan.functions or ())
    if name == "Intercept":
        return updated(formula, ". ~ . - 1")
    origin = design.origins[design.fixed.index(name)]
    term = formula.fixed[origin.term]
    if sum(one.term == origin.term for one in design.origins) > 1:
        raise FitError(
            f"`{name}` is one of several columns of `{term}`: compare the models, with "
            f'find=". ~ . - {term}".'
        )
    return updated(formula, f". ~ . - {term}", plan.functions or ())


def _without_sd(design: Design, plan: Plan, term: Any, place: int) -> str:
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


# ------------------------------------------------------------------------------ a single size


@dataclass(frozen=True, eq=False)
class _Plans:
    """All that is the same for studies of every size."""

    plan: Plan
    fixed: tuple[str, ...]
    truth: Truth
    tasks: Sequence[Task]
    alpha: float


def _at_size(plans: _Plans, frame: pd.DataFrame, studies: Replications) -> list[dict[str, float]]:
    """Return the power of every task in studies of some rows."""
    plan, fixed, truth, tasks = plans.plan, plans.fixed, plans.truth, plans.tasks
    design = plan.design(frame=frame)
    if design.fixed != fixed:
        raise FitError(
            f"a study of {design.n_obs} rows has other fixed effects than the plan, "
            f"{listed(design.fixed)} in place of {listed(fixed)}: it is too small for all of them."
        )
    identifiability.check_identified(_varied(design), plan.family)
    results: dict[Task, Found] = {}
    for test in ("t", "z"):
        single = [task for task in tasks if task.test == test]
        if single:
            which = [task.place for task in single]
            found = t_tests(design, truth, studies, which, plans.alpha, t=test == "t")
            results |= dict(zip(single, found, strict=True))
    for task in tasks:
        if task.smaller:
            small = plan.design(task.smaller, frame)
            results[task] = ratio_tests(
                (small, design), plan.family, truth, studies, alpha=plans.alpha, test=task.test
            )
    return [_numbers(results[task]) for task in tasks]


def _varied(design: Design) -> Design:
    """Return a design with a response that varies, as that of a study does."""
    y: Array = np.where(np.arange(design.n_obs) % 2, design.rows.y, 0.5 * design.rows.y)
    return design.with_rows(y=y)


def _numbers(found: Found) -> dict[str, float]:
    n, hits = len(found.found), int(found.found.sum())
    lower, upper = binomial_interval(hits, n)
    return {
        "power": hits / n,
        "lower": lower,
        "upper": upper,
        "studies": n,
        "failed": int(found.failed.sum()),
    }
