"""Predictions of lazy rows: which of them are expressions, and refusals of the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ranef._typing import Array
from ranef.design.design import Design
from ranef.design.lazy.lazy_means import LazyMeans
from ranef.design.lazy.lazy_table import LazyFrame
from ranef.errors import FitError
from ranef.families.family import Family
from ranef.fits.predictions.prediction_table import Question

COLLECT = "collect the rows that are to be predicted"


def lazy_prediction(
    data: LazyFrame,
    design: Design,
    family: Family,
    asked: Question,
    estimates: tuple[Array, Mapping[str, Array]],
    *,
    is_point: bool,
    draws: bool,
) -> Any:
    """Return lazy rows with a column of predicted means, or of the linear predictor.

    Parameters
    ----------
    data : LazyFrame
    design : Design
    family : Family
    asked : Question
    estimates : tuple of ndarray and mapping
        Of the fixed effects, and of the random effects that take part, by label.
    is_point : bool
        Whether they are all there is, so that a mean is a function of the linear predictor.
    draws : bool
        Whether draws are wanted.

    Raises
    ------
    FitError
        If what is asked is no expression of the columns.
    """
    if asked.prob is not None or draws:
        message = (
            f"{'draws=True' if draws else 'prob='} is found row by row, and lazy rows are not "
        )
        raise FitError(f"{message}here: {COLLECT}.")
    wants_link = asked.kind == "link"
    beta, effects = estimates
    has_effects = asked.groups in ("known", "new")
    is_own = is_point and asked.groups in ("known", "population")
    if not (wants_link or family.mean_is_eta or (is_own and family.link.name in _INVERSES)):
        message = f"means of {asked.groups!r} groups of a {family.name} model with "
        message += (
            f"{family.link.name} link are no expression of the columns: take kind='link', or "
        )
        raise FitError(f"{message}{COLLECT}.")
    means = LazyMeans(design, beta, effects if has_effects else {}, asked.groups == "known")
    as_it_is = wants_link or family.mean_is_eta
    change = (lambda eta: eta) if as_it_is else _INVERSES[family.link.name]
    return means.of(data, "link" if wants_link else "mean", change)


def _logistic(eta: Any) -> Any:
    return 1.0 / (1.0 + (0.0 - eta).exp())


_INVERSES = {"log": lambda eta: eta.exp(), "logit": _logistic}
