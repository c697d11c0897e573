"""What the numbers of a comparison are, how they were obtained, and what they hold for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized

import pandas as pd

from ranef.comparison.words.verdict import MIN_ELPD_DIFFERENCE, Score, is_known
from ranef.design.design import Design
from ranef.errors import listed
from ranef.fits.fit import Fit
from ranef.fits.posterior import PosteriorFit

NO_RANDOM_EFFECTS = "no random effects"
SMALL_ERROR = 0.001  # of a number, that nobody need think of
METHODS = (
    ("how_group", "error_group", "Scores of new groups"),
    ("how_row", "error_row", "Scores of new rows"),
    ("how_ml", "log_ml_error", "log p(y)"),
)
SCORES = (
    "Scores are expected log predictive densities (elpd): the best in full, the others as the "
    "difference from it ± its standard error over the units left out."
)
PROBABILITIES = (
    "log p(y): the logarithm of the probability density of the data, averaged over the priors. "
    "Bayes factor: how probable the data are, relative to the best model. Posterior probability: "
    "of the model, from its Bayes factor and its prior probability."
)
CRITERIA = (
    "df: the number of parameters. AIC, BIC: -2 log-likelihood + 2 df, + log(rows) df; lower is "
    "better."
)


def title(designs: Sequence[Design], largest: str = "", families: int = 1) -> str:
    """Return what is compared: the question, the models, how many rows and groups.

    Parameters
    ----------
    designs : sequence of Design
        Of the models.
    largest : str
        The formula of the model that the others simplify, if there is one.
    families : int
        How many families the models have.
    """
    n = len(designs)
    models = f"{n} models of {designs[0].response}"
    if largest:
        models = f"{largest} and {n - 1} simpler structure{'s' * (n > 2)}"
    levels = {term.factor: term.n_levels for design in designs for term in design.terms}
    counts = [f"{m} levels of {factor}" for factor, m in levels.items()]
    question = _question(designs) if families == 1 else "Which model?"
    return f"{question}   {', '.join([models, f'{designs[0].n_obs} rows', *counts])}"


def _question(designs: Sequence[Design]) -> str:
    """Return what the models differ by."""
    same_fixed = len({design.fixed for design in designs}) == 1
    same_random = len({frozenset(term.text for term in d.terms) for d in designs}) == 1
    if same_fixed == same_random:
        return "Which model?"
    return "Which random effects?" if same_fixed else "Which fixed effects?"


# ------------------------------------------------------------------------------- the legend


def legend(table: pd.DataFrame, scores: Sequence[Score]) -> list[str]:
    """Explain the columns of a table, and say how the numbers were obtained.

    Parameters
    ----------
    table : DataFrame
        Of a comparison.
    scores : sequence of Score
        Those that the table has.
    """
    lines = []
    if scores:
        lines.append(" ".join([SCORES, *_warnings(table, scores)]))
    if "log_ml" in table:
        lines.append(PROBABILITIES)
    if "loglik" in table:
        lines.append(CRITERIA)
    return [*lines, *_methods(table)]


def _warnings(table: pd.DataFrame, scores: Sequence[Score]) -> list[str]:
    """Say what speaks against the standard errors, and against the scores of some units."""
    said, few = [], []
    for score in scores:
        flags = [flag for flag in table[f"diag_diff_{score.suffix}"].dropna() if flag]
        if any(flag.startswith("N <") for flag in flags):
            units = "rows" if score.factor is None else f"levels of {score.factor}"
            few.append(f"{len(score.elpd)} {units}")
        elif flags:
            said.append(f"That of a difference below {MIN_ELPD_DIFFERENCE:.0f} is often too small.")
        heavy = table[f"diag_elpd_{score.suffix}"].dropna()
        said += [
            f"`{name}`: {text} (Pareto's, of the importance weights of so many units)."
            for name, text in heavy.items()
            if text
        ]
    if few:
        said.insert(0, f"{' and '.join(few)} are few for such a standard error.")
    return list(dict.fromkeys(said))


def _methods(table: pd.DataFrame) -> list[str]:
    """Say how every number was obtained, and its error."""
    found = {what: table.groupby(how, sort=False) for how, _, what in METHODS if how in table}
    if not found:
        return []
    errors = [table[error].dropna() for how, error, _ in METHODS if how in table]
    largest = float(pd.concat(errors).max())
    size = f"below {SMALL_ERROR}" if largest < SMALL_ERROR else f"up to {largest:.1g}"
    methods = {str(method) for by_method in found.values() for method, _ in by_method}
    if len(methods) == 1:
        return [f"All by {methods.pop()}; errors of the numbers are {size}."]
    sentences = [
        f"{what}: {'; '.join(_of_models(str(m), rows, by_method) for m, rows in by_method)}."
        for what, by_method in found.items()
    ]
    return [" ".join([*sentences, f"Errors of the numbers are {size}."])]


def _of_models(method: str, rows: pd.DataFrame, by_method: Sized) -> str:
    return method if len(by_method) == 1 else f"{method} ({listed(rows.index)})"


# ------------------------------------------------------------------------------- the caveats


def failures(table: pd.DataFrame, reasons: Mapping[str, str]) -> list[str]:
    """Say why a model has no numbers, or no Bayes factor."""
    said = [f"`{name}` failed: {reason}" for name, reason in reasons.items()]
    if "log_ml" in table:
        known = table[table["log_ml"].notna()]
        columns = (known["log_bayes_factor"], known["log_bayes_factor_error"])
        said += [
            f"`{name}` has no Bayes factor: its logarithm has an error of {error:.2g}."
            for name, log_bf, error in zip(known.index, *columns, strict=True)
            if not is_known(log_bf, error)
        ]
    return said


def caveats(
    fits: Mapping[str, Fit],
    posteriors: Mapping[str, PosteriorFit],
    reason: str = "",
    effects: Sequence[str] = (),
) -> tuple[str, ...]:
    """Return the notes that concern the table as a whole."""
    notes = []
    if reason:
        notes.append(f"No Bayes factors: {reason}")
    if len(posteriors) == 1:
        notes.append(
            f"{listed(posteriors)} is the only posterior: predictions and marginal likelihoods are "
            "compared between two or more."
        )
    points = [name for name in fits if name not in posteriors]
    if points:
        notes.append(
            f"{listed(points)}: point estimates, which have no predictive densities of what is "
            'left out and no marginal likelihood; fit them by "quadrature", "laplace" or "mcmc". '
            "AIC and BIC count a variance like any other parameter, which it is not where it may "
            "be zero; rf.anova tests that."
        )
    reml, modes = ([n for n, fit in fits.items() if fit.method == m] for m in ("reml", "map"))
    if reml:
        notes.append(
            f"{listed(reml)}: restricted log-likelihoods compare only with each other, and "
            "between models with the same fixed effects."
        )
    if modes:
        notes.append(f"{listed(modes)}: the likelihood at a posterior mode is not maximal.")
    if len(posteriors) > 1 and not reason:
        notes.append(priors_note(posteriors, effects))
    return tuple(notes)


def priors_note(posteriors: Mapping[str, PosteriorFit], effects: Sequence[str] = ()) -> str:
    """Return the priors, of random effects and of what differs, that the Bayes factors hold for."""
    moved = dict.fromkeys(
        f"{row.name} ~ {row.prior} {row.note}".rstrip()
        for fit in posteriors.values()
        for row in fit.asked.priors.rows()
        if row.parameter.startswith(("sd_", "corr_"))
        or (row.parameter == "beta" and row.coef in effects)
    )
    said = listed(moved, limit=6) if moved else "see `model.prior_table()`"
    return f"Bayes factors hold for the priors of these models: {said}."
