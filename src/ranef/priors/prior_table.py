"""The priors of a model as a table."""

from __future__ import annotations

import pandas as pd

from ranef.priors.assignment import Priors


class PriorTable(pd.DataFrame):
    """A table of priors, which prints with all of its rows and columns."""

    def __repr__(self) -> str:
        return self.to_string()


def prior_table(priors: Priors) -> pd.DataFrame:
    """Tabulate the priors of a model.

    Returns
    -------
    DataFrame
        Columns `parameter` (`beta`, `sigma`, `sd_<term>`, `corr_<term>`), `coef`, `prior` (text)
        and `note`, which says where the prior holds if not at zero predictors.

    Examples
    --------
    >>> import ranef as rf
    >>> model = rf.Model("Reaction ~ Days + (1 | Subject)", rf.load_dataset("sleepstudy"))
    >>> print(prior_table(model.priors)[["parameter", "coef", "prior"]].to_string(index=False))
     parameter      coef                prior
          beta Intercept Normal(298.5, 140.8)
          beta      Days     Normal(0, 48.89)
         sigma           HalfStudentT(3, 56.33)
    sd_Subject Intercept HalfStudentT(3, 56.33)
    """
    return PriorTable(
        [(row.parameter, row.coef, str(row.prior), row.note) for row in priors.rows()],
        columns=["parameter", "coef", "prior", "note"],
    )
