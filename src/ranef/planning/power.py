"""What a planned study can find: `rf.power`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ranef._typing import Array, Executor, Seed
from ranef.arguments import check_counts, check_known, check_seed
from ranef.comparison.null_distributions import binomial_interval
from ranef.design import identifiability
from ranef.design.design import Design, with_columns
from ranef.design.labels import sd_name
from ranef.errors import DataError, FitError, listed, probability
from ranef.families.family import Family
from ranef.families.links import Link
from ranef.fits.fit import Fit
from ranef.likelihood.bootstrap.simulated_responses import entropy_of
from ranef.numerics.memory import check_memory
from ranef.planning.findings import Sought, wanted
from ranef.planning.planned_rows import Plan, sized
from ranef.planning.power_table import Power
from ranef.planning.rejections import Found, Replications, ratio_tests
from ranef.planning.stated_parameters import Truth, by_full_names, own_parameters, stated
from ranef.planning.wald_tests import wald_tests
from ranef.progress import mapped

OF_A_STUDY = 60  # numbers that each simulated study needs at least


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
        What is to be found: fixed effects by name, all but the intercept by default; a term of
        several of them, `period` for all of `period[T.2]` and its like; a standard deviation of
        random effects, `sd_Subject[Days]`; or a choice between structures, the smaller model as a
        formula in which `.` stands for that side of the larger one's,
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
    test : {"t", "F", "z", "chi2", "mixture", "bootstrap"}, optional
        How it is tested. "t", and of several fixed effects "F": by estimates over their standard
        errors by REML, with Satterthwaite's degrees of freedom. "z": with infinitely many, which
        is the Wald test, and of generalised models by maximum likelihood. All others are
        (restricted) likelihood ratios, against chi-squared; against its mixture where variances
        are zero; or against ratios that are simulated from the smaller model. By default "t" or
        "F", of generalised models "chi2", for fixed effects; for what is random "bootstrap", of
        generalised models "mixture".
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
    level = probability(alpha, "alpha")
    own = own_parameters(parameters, sigma)
    options = {"link": link, "weights": weights, "offset": offset, "functions": functions}
    plan, full, truth = _planned(study, design, family, options, (beta, theta, own))
    of_rows = 0 if plan.family.is_linear else full.n_obs
    check_memory(
        float(n) * (OF_A_STUDY + of_rows), f"{n:,} studies", "Simulate fewer of each size (`n=`)."
    )
    findings = wanted(full, plan, find, test)
    points = sized(full, plan.frame, groups, rows)
    entropy = entropy_of(seed)
    run = partial(_at_size, _Plans(plan, full.fixed, truth, findings, level))
    studies = [Replications(n, entropy, 2 * n * i) for i in range(len(points))]
    results = mapped(executor, run, [frame for _, frame in points], studies)
    table = pd.DataFrame(
        [
            {**size, "n_obs": len(frame), "found": sought.label, "test": sought.test, **numbers}
            for (size, frame), found in zip(points, results, strict=True)
            for sought, numbers in zip(findings, found, strict=True)
        ]
    )
    return Power(table, tuple(points[0][0]), plan.formula, tuple(truth.words(full)), level, entropy)


def _planned(
    study: Fit | str,
    design: object,
    family: str | Family,
    options: dict[str, Any],
    parameters: tuple[Any, Any, dict[str, float]],
) -> tuple[Plan, Design, Truth]:
    """Return the plan of a study, its design, and its true parameters."""
    if isinstance(study, Fit):
        given = {"design": design} | options
        said = [name for name, value in given.items() if value is not None]
        if said or family != "gaussian":
            raise FitError(
                f"{listed(said or ['family'])} is for a study that is given as a formula: a pilot "
                "study has its own rows and family."
            )
        plan, full = _of_pilot(study)
        return plan, full, _pilots(study, full, *parameters)
    if not isinstance(study, str):
        raise FitError(f"study is a fit or a formula, got {type(study).__name__}.")
    if design is None:
        raise FitError("design is missing: give the rows of the study, without a response.")
    plan = Plan.of(study, design, family, **options)
    full = plan.design()
    return plan, full, stated(full, plan.family, *parameters)


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
        random |= by_full_names(design, dict(theta))
    elif theta is not None:
        random = theta
    return stated(design, fit.family, fixed, random if names else None, own)


# ------------------------------------------------------------------------------ a single size


@dataclass(frozen=True, eq=False)
class _Plans:
    """All that is the same for studies of every size."""

    plan: Plan
    fixed: tuple[str, ...]
    truth: Truth
    findings: Sequence[Sought]
    alpha: float


def _at_size(plans: _Plans, frame: pd.DataFrame, studies: Replications) -> list[dict[str, float]]:
    """Return the power of finding what is sought in studies of some rows."""
    plan, fixed = plans.plan, plans.fixed
    try:
        design = plan.design(frame=frame)
        if design.fixed == fixed:
            identifiability.check_identified(_varied(design), plan.family)
    except DataError as error:
        raise DataError(f"a study of {len(frame)} rows cannot be fitted: {error}") from error
    if design.fixed != fixed:
        raise FitError(
            f"a study of {design.n_obs} rows has other fixed effects than the plan, "
            f"{listed(design.fixed)} in place of {listed(fixed)}: it is too small for all of them."
        )
    common, results = (plan.family, plans.truth, studies), dict[Sought, Found]()
    for tests in (("t", "F"), ("z",)):
        alike = [sought for sought in plans.findings if sought.test in tests]
        if alike:
            which = [sought.places for sought in alike]
            found = wald_tests(design, *common, which, alpha=plans.alpha, t="t" in tests)
            results |= dict(zip(alike, found, strict=True))
    for sought in plans.findings:
        if sought not in results:
            small = _smaller(plan, design, sought, frame)
            results[sought] = ratio_tests(
                (small, design), *common, alpha=plans.alpha, test=sought.test
            )
    return [_numbers(results[sought]) for sought in plans.findings]


def _smaller(plan: Plan, design: Design, sought: Sought, frame: pd.DataFrame) -> Design:
    """Return the design of the smaller model."""
    if sought.smaller:
        return plan.design(sought.smaller, frame)
    return with_columns(design, [j for j in range(len(design.fixed)) if j not in sought.places])


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
