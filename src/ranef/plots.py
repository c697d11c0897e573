"""Draw random effects: the caterpillar plot and the shrinkage plot.

Both take a tidy table, so that any fit (and any table made by hand) can be drawn. Each goes the
same way: table -> records of arrays -> marks on given axes, or on a new figure made for them.
Matplotlib loads with the first plot, not with the package.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri

from ranef.errors import DataError, RanefError, listed, suggestion

if TYPE_CHECKING:
    from matplotlib.axes import Axes

type Floats = NDArray[np.float64]
type AxesLike = Axes | Iterable[Axes] | None

KINDS = ("interval", "qq")
ORDERS = ("estimate", "each", "level")
RANEF_COLUMNS = ("term", "level", "coef", "estimate", "lower", "upper")
SHRINKAGE_COLUMNS = ("term", "level", "coef", "own", "model", "population", "n")
CONTOURS = (0.5, 0.95)

# Blue of the colour-blind-safe palette of Okabe and Ito, and a tint of it.
ACCENT, TINT, GREY, PALE = "#0072B2", "#86BBDC", "0.45", "0.9"
MAX_LABELLED = 60
MIN_LABEL_POINTS = 7.0
MAX_LABEL_CHARACTERS = 32


def caterpillar(
    table: pd.DataFrame,
    *,
    term: str | None = None,
    kind: Literal["interval", "qq"] = "interval",
    order: Literal["estimate", "each", "level"] = "estimate",
    interval_label: str = "",
    ax: AxesLike = None,
) -> NDArray[np.object_]:
    """Draw the random effects of a fit with their intervals, one panel a coefficient.

    Parameters
    ----------
    table : DataFrame
        Columns `term, level, coef, estimate, lower, upper` (others are ignored), one row for each
        level and coefficient, in the units of the coefficients.
    term : str, optional
        The term to draw. By default all of them, one row of panels a term.
    kind : {"interval", "qq"}
        `"interval"` puts one level on each row. `"qq"` puts the levels at the standard normal
        quantiles of (rank - 1/2) / m: normal effects lie on a line.
    order : {"estimate", "each", "level"}
        Levels from the bottom by the estimates of the term's first coefficient (the same row
        is the same level in all panels), by each panel's own estimates, or from the top in the
        order of the table. A quantile plot always ranks each panel by its own estimates.
    interval_label : str
        What the intervals are, for instance `"mode ± 1.96 conditional sd"`.
    ax : Axes or several Axes, optional
        Axes to draw on, one for each panel. By default a new figure is made.

    Returns
    -------
    ndarray of Axes, shape (panels,)
        Term by term, in the order of the table.

    Raises
    ------
    DataError
        The table is empty, lacks a column, or has no such term.
    RanefError
        `kind` or `order` is not known, or the number of axes is wrong.

    Notes
    -----
    Levels are named while each has at least 7 points of height; a new figure grows to give up to
    60 levels that much. Beyond, the axis counts them.

    References
    ----------
    Bates, Mächler, Bolker and Walker (2015), "Fitting linear mixed-effects models using lme4",
    Journal of Statistical Software 67(1): `dotplot(ranef(m))` and `qqmath(ranef(m))`.

    Examples
    --------
    >>> table = pd.DataFrame(
    ...     {"term": "Batch", "level": list("ABC"), "coef": "Intercept", "estimate": [-1, 2, 0.5],
    ...      "sd": 1.0, "lower": [-3, 0, -1.5], "upper": [1, 4, 2.5]})
    >>> (panel,) = caterpillar(table, interval_label="95 % HPD")
    >>> [label.get_text() for label in panel.get_yticklabels()]
    ['A', 'C', 'B']
    """
    _check_choice("kind", kind, KINDS)
    _check_choice("order", order, ORDERS)
    _check_table(table, RANEF_COLUMNS)
    terms = _names(table["term"]) if term is None else [_known_term(table, term)]
    rows = [_panels(table, name, "each" if kind == "qq" else order) for name in terms]
    names = [f"{panel.term}: {panel.coef}" for panel in chain(*rows)]
    axes = _new_grid(rows, kind) if ax is None else _given_axes(ax, names)
    places = iter(axes)
    for row in rows:
        for position, panel in enumerate(row):
            named = position == 0 or (order == "each" and kind == "interval")
            _draw_panel(next(places), panel, kind, named, interval_label)
    return axes
