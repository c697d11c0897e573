"""Several fits in one table, whatever the methods."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from ranef.errors import FitError
from ranef.fits.fit import Fit


def side_by_side(fits: Mapping[str, Fit]) -> pd.DataFrame:
    """Tabulate the estimates of several fits, one column a fit.

    Parameters
    ----------
    fits : mapping of str to Fit
        Fits by the name that heads their column; any methods together.

    Returns
    -------
    DataFrame
        Rows are parameters, named as in `Fit.estimates`; nan where a fit has no such parameter.

    Examples
    --------
    >>> import ranef as rf
    >>> model = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    >>> rf.side_by_side({"REML": model.fit(), "ML": model.fit("ml")}).round(2)
                             REML       ML
    Intercept             1527.50  1527.50
    sigma                   49.51    49.51
    sd_Batch[Intercept]     42.00    37.26
    """
    given: object = fits  # whatever it may really be
    named = isinstance(given, Mapping) and all(isinstance(fit, Fit) for fit in given.values())
    if not named:
        raise FitError("side_by_side takes a dict from names to fits: {'REML': reml, 'ML': ml}.")
    columns = {name: fit.estimates() for name, fit in fits.items()}
    rows = list(dict.fromkeys(row for column in columns.values() for row in column.index))
    return pd.DataFrame({name: column.reindex(rows) for name, column in columns.items()})
