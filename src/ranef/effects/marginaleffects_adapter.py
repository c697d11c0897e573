"""Fits for the Python package marginaleffects: `to_marginaleffects`, a model of its own kind.

Needs the optional extra, `pip install "ranef[marginaleffects]"`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ranef._typing import Array
from ranef.arguments import check_choice
from ranef.design.data_frame import coded, level_texts
from ranef.design.design import Design
from ranef.design.new_data.new_rows import new_rows
from ranef.effects.linear_functions import SCALES
from ranef.effects.reference_grid import reference_values
from ranef.errors import FitError
from ranef.fits.point import PointFit
from ranef.fits.predictions.estimated_rows import estimated_rows
from ranef.likelihood.predictions import mean_over_groups

try:
    import polars as pl
    from marginaleffects.classes import ModelAbstract, ModelVault
except ImportError:  # the function is there, `help` and completion see it, and says what it needs
    ModelAbstract = object


class ModelRanef(ModelAbstract):  # type: ignore[misc]
    """A point fit as marginaleffects asks its models: fixed effects that give means of rows.

    Made by `to_marginaleffects`.
    """

    def __init__(self, fit: PointFit, kind: str, groups: str) -> None:
        self.kind, self.groups = kind, groups
        design = fit.design
        vault = ModelVault(
            coef=fit.fixef().to_numpy(),
            coefnames=np.array(design.fixed),
            formula=self.get_exog,  # called for matrices, and not read as text
            modeldata=_frame(design),
            package="ranef",
            vcov=fit.vcov().to_numpy(),
            variable_names=[design.response, *reference_values(design)],
        )
        super().__init__(fit, vault)

    def validation(self) -> None:
        """Say what kind each predictor is of: a complete fit has nothing to validate."""
        frame = self.vault.modeldata
        for name, values in reference_values(self.model.design).items():
            column, is_number = frame[name], len(values) == 1
            kind = "boolean" if column.dtype == pl.Boolean else "character"
            if is_number:
                kind = "binary" if set(column.unique()) == {0, 1} else "numeric"
            self.set_variable_type(name, kind)

    def get_vcov(self, vcov: object = None) -> Array | None:
        """Return the covariance of the fixed effects, or none; there are no others."""
        if vcov is False:
            return None
        if vcov is not None and vcov is not True:
            raise FitError(
                f"vcov={vcov!r} is not known for these fits: True, False, or a matrix of your own."
            )
        return np.asarray(self.vault.vcov)

    def get_exog(self, newdata: Any) -> Array:
        """Return the fixed columns of rows, their offset, and the variance of a group's effects."""
        terms = None if self.groups == "average" else ()
        rows = new_rows(self.model.design, newdata, terms=terms, grouping="ignored")
        between = estimated_rows(self.model.fitted_model, rows, None, fixed=False).between[0]
        return rows.spread(np.column_stack([rows.X, rows.offset, between]))

    def get_predict(self, params: Array, newdata: Array) -> Any:
        """Return predictions at some values of the fixed effects."""
        eta, model = newdata[:, :-2] @ params + newdata[:, -2], self.model.fitted_model
        if self.kind == "response":
            psi = np.array(list(model.parameters.values()))
            eta = mean_over_groups(model.family, eta, newdata[:, -1], psi)
        rows = pl.Series(range(len(eta)), dtype=pl.Int32)
        return pl.DataFrame({"rowid": rows, "estimate": eta})


def to_marginaleffects(
    fit: PointFit, *, kind: str = "response", groups: str = "population"
) -> ModelRanef:
    """Return a point fit as a model that the package marginaleffects takes.

    Its `predictions`, `comparisons`, `slopes`, `hypotheses` and their `avg_` forms then answer for
    the fit, with hypotheses, plots and all their options.

    Parameters
    ----------
    fit : PointFit
    kind : {"response", "link"}
        What is predicted.
    groups : {"population", "average"}
        Of a typical group, whose random effects are zero; or the mean over all groups.

    Returns
    -------
    ModelRanef
        A `marginaleffects.classes.ModelAbstract`.

    Raises
    ------
    ImportError
        Without the package: `pip install "ranef[marginaleffects]"`.
    FitError
        If the fit is a posterior.

    Notes
    -----
    Limits: the errors are those of the fixed effects, by the delta method with numerical
    derivatives (six digits); the variances are as if known, tests are normal, and random effects
    of known groups and other covariances (`vcov="HC3"`) are not there, nor are posteriors: the
    package for Python, unlike that for R, asks its models for estimates and their covariance and
    takes no draws. Factors have their levels in the order of the fit, also what the formula makes
    one, as `factor(x)`. Rows whose mean the data do not determine are nan.

    Source: Arel-Bundock, Greifer & Heiss (2024), *Journal of Statistical Software* 111(9).

    Examples
    --------
    >>> import ranef as rf
    >>> from marginaleffects import avg_comparisons
    >>> data = rf.load_dataset("Contraception")
    >>> fit = rf.fit("use ~ age + urban + (1 | district)", data, family="binomial")
    >>> table = avg_comparisons(rf.to_marginaleffects(fit), variables="urban")
    >>> table["estimate"].round(4).item(), table["std_error"].round(4).item()
    (0.1562, 0.0281)
    """
    if ModelAbstract is object:
        message = 'rf.to_marginaleffects needs the package: pip install "ranef[marginaleffects]".'
        raise ImportError(message)
    if not isinstance(fit, PointFit):
        raise FitError(
            f"to_marginaleffects takes a point fit (reml, ml, map), got {type(fit).__name__}: of "
            "posteriors rf.means(), rf.comparisons() and rf.slopes() give the same quantities."
        )
    check_choice("kind", kind, SCALES, "is not a scale")
    check_choice("groups", groups, ("population", "average"), "is not an option")
    return ModelRanef(fit, kind, groups)


def _frame(design: Design) -> Any:
    """Return the rows of a design as polars has them, factors with their levels."""
    frame, columns = design.rows.data.frame(offset=design.recipe.offset), {}
    for name, column in frame.items():
        if column.dtype.kind in "iufb" and not isinstance(column.dtype, pd.CategoricalDtype):
            columns[str(name)] = pl.Series(column.to_numpy())
        else:
            found = coded(str(name), column)
            levels = level_texts(found.levels).tolist()
            texts = [levels[code] for code in found.codes]
            columns[str(name)] = pl.Series(texts, dtype=pl.Enum(levels))
    return pl.DataFrame(columns)
