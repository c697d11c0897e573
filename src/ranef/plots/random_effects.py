"""Draw random effects: the caterpillar plot and the shrinkage plot.

Both take a tidy table, so that any fit, and any table made by hand, can be drawn. Each goes the
same way: table -> records of arrays -> marks on given axes, or on a new figure made for them.
Matplotlib loads with the first plot, not with the package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import compress
from typing import Any, Literal, Unpack

import numpy as np
import pandas as pd

from ranef._typing import Array, Axes, Panels, Style
from ranef.arguments import check_choice, check_known
from ranef.errors import DataError, RanefError
from ranef.plots import canvas
from ranef.plots.by_group.arrows import Groups, draw_groups, new_single
from ranef.plots.by_group.caterpillars import Panel, draw_panel, finish, new_grid, share_limits

KINDS = ("interval", "qq")
ORDERS = ("estimate", "each", "level")


def caterpillar(
    table: pd.DataFrame,
    *,
    term: str | None = None,
    kind: str = "interval",
    order: str = "estimate",
    interval_label: str = "",
    xlabels: Mapping[str, str] | None = None,
    titles: Mapping[str, str] | None = None,
    sharex: bool = False,
    **style: Unpack[Style],
) -> Panels:
    """Draw the random effects of a fit with their intervals, one panel a coefficient.

    Parameters
    ----------
    table : DataFrame
        Columns `term, level, coef, estimate, lower, upper`, one row for each level and coefficient,
        in the units of the coefficient; and `population`, where a line is drawn, zero without it.
        Others are ignored.
    term : str, optional
        The term to draw. By default all of them, one row of panels a term, because a plot that
        leaves a grouping factor out unasked would be read as the whole model.
    kind : {"interval", "qq"}
        `"interval"` gives each level a row of its own. `"qq"` puts the levels at the standard
        normal quantiles of (rank - 1/2) / m, where normal effects lie on a line: the one through
        the quartiles is drawn, and the levels at both ends are named.
    order : {"estimate", "each", "level"}
        Levels from the bottom by the estimates of the term's first coefficient (a row is the
        same level in all its panels), by each panel's own estimates, or from the top in the
        order of the table. A quantile plot ranks each panel by its own estimates in any case.
    interval_label : str
        What the intervals are, for instance `"mode ± 1.96 conditional sd"`; written once a term,
        under its title.
    xlabels, titles : mapping of str to str, optional
        What stands at the axis of a coefficient, and what a term is called; their names by default.
    sharex : bool
        Whether panels of the same coefficient have the same limits, so that terms can be compared.
    ax : Axes or several Axes, optional
        Axes to draw on, one for each panel. By default a new figure is made.
    figsize : tuple of float, optional
        Width and height of a new figure in inches; by default there is room for all.

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
    Levels are named where each has at least 7 points of height, which a new figure gives to as
    many as 60; beyond, the axis counts them and names those at both ends. Where the intervals have
    no width, as of effects whose sd is estimated as zero, points are hollow and the axis says so.

    References
    ----------
    Bates, Mächler, Bolker and Walker (2015), "Fitting linear mixed-effects models using lme4",
    Journal of Statistical Software 67(1): `dotplot(ranef(m))` and `qqmath(ranef(m))`.

    Examples
    --------
    >>> table = pd.DataFrame(
    ...     {"term": "Batch", "level": list("ABC"), "coef": "Intercept",
    ...      "estimate": [-1, 2, 0.5], "lower": [-3, 0, -1.5], "upper": [1, 4, 2.5]})
    >>> (panel,) = caterpillar(table, interval_label="95 % HPD")
    >>> [label.get_text() for label in panel.get_yticklabels()]
    ['A', 'C', 'B']
    """
    check_choice("kind", kind, KINDS, "is not known", error=RanefError)
    check_choice("order", order, ORDERS, "is not known", error=RanefError)
    terms = names_in(table["term"]) if term is None else (term,)
    panel_order = "each" if kind == "qq" else order
    words = xlabels or {}, titles or {}
    rows = [_panels(term_table(table, name), panel_order, *words) for name in terms]
    panels = [panel for row in rows for panel in row]
    names = [f"{panel.term}: {panel.coef}" for panel in panels]
    axes = canvas.axes_of(names, partial(new_grid, rows, kind), **style)
    for panel_axes, panel in zip(axes, panels, strict=True):
        draw_panel(panel_axes, panel, kind, interval_label)
    if sharex:
        share_limits(axes, panels)
    finish(axes, panels, kind)
    return axes


def shrinkage(
    table: pd.DataFrame,
    *,
    term: str | None = None,
    coefs: str | Sequence[str] | None = None,
    covariance: pd.DataFrame | Array | None = None,
    labels: bool | Literal["auto"] = "auto",
    xlabels: Mapping[str, str] | None = None,
    own: str = "group's own estimate",
    **style: Unpack[Style],
) -> Axes:
    """Draw how the model pulls each group's own estimate towards the population.

    One coefficient gives each group a row, sorted by its own estimate; two span a plane.

    Parameters
    ----------
    table : DataFrame
        Columns `term, level, coef, own, model, population, n`: the group's own estimate, by least
        squares or maximum likelihood (no pooling; missing where its data cannot give one), the
        model's (partial pooling), its fixed part (complete pooling), and the group's number of
        observations. Others are ignored.
    term : str, optional
        The term to draw. By default the first of the table.
    coefs : str or sequence of one or two str, optional
        The coefficients to draw. By default the first two of the term, or its only one.
    covariance : DataFrame or ndarray, shape (k, k), optional
        Estimated covariance of the random effects, to draw the regions that hold 50 % and 95 %
        of the groups under the model. A DataFrame may hold more coefficients than are drawn.
    labels : bool or "auto"
        Whether to name the groups; `"auto"` names them where a name covers no point, and of long
        lists those at the ends.
    xlabels : mapping of str to str, optional
        What stands at the axis of a coefficient; its name by default.
    own : str
        What the legend calls the own estimates.
    ax : Axes, optional
        Axes to draw on. By default a new figure is made.
    figsize : tuple of float, optional
        Width and height of a new figure in inches.

    Returns
    -------
    Axes

    Raises
    ------
    DataError
        The table is empty, lacks a column, or has no such term or coefficient.
    RanefError
        More than two coefficients, more than one axes, or a covariance of the wrong shape.

    Notes
    -----
    Groups without an estimate of their own are not drawn; a note below the axes names them. In the
    plane a group with an own estimate of one coefficient alone has a stroke for a ring, at the
    model's estimate of the other. Own estimates more than three interquartile ranges beyond the
    quartiles do not stretch the axes; those that end up outside are named too.

    Bands or ellipses are drawn where all groups have the same population, ellipses also around
    up to four. Elsewhere each group's population is a stroke in its row, or a diamond.

    References
    ----------
    Gelman and Hill (2007), "Data Analysis Using Regression and Multilevel/Hierarchical Models",
    chapter 12.

    Examples
    --------
    >>> table = pd.DataFrame(
    ...     {"term": "Batch", "level": list("ABC"), "coef": "Intercept",
    ...      "own": [1.0, 5.0, 9.0], "model": [2.0, 5.0, 8.0], "population": 5.0, "n": 4})
    >>> shrinkage(table).get_xlabel()
    'Intercept'
    """
    name = names_in(table["term"])[0] if term is None else term
    mine = term_table(table, name)
    groups = _groups(mine, _checked_coefs(mine, coefs), xlabels or {}, own)
    cov = _covariance(covariance, groups.coefs)
    axes = new_single(groups, **style)
    draw_groups(axes, groups, cov, labels)
    return axes


def _checked_coefs(table: pd.DataFrame, coefs: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the coefficients to draw of one term's table, by default its first two."""
    names = names_in(table["coef"])
    drawn = names[:2] if coefs is None else (coefs,) if isinstance(coefs, str) else tuple(coefs)
    fault = f"The term `{table['term'].iloc[0]}` has no coefficient"
    check_known(drawn, names, lambda coef: f"{fault} `{coef}`.", error=DataError)
    if len(drawn) not in (1, 2):
        raise RanefError(f"`coefs` must name one or two coefficients to draw, not {len(drawn)}.")
    return drawn


def names_in(column: pd.Series[Any]) -> tuple[str, ...]:
    """Return the different values of a column as text, in their order."""
    return tuple(map(str, column.unique()))


def term_table(table: pd.DataFrame, term: str) -> pd.DataFrame:
    """Return the rows of one term, its levels as text."""
    rows = table[table["term"] == term]
    return rows.assign(level=list(map(str, rows["level"])))


def effects_matrix(table: pd.DataFrame, column: str, coefs: Sequence[str]) -> Array:
    """Return a column of one term's table as an array, levels x coefficients."""
    wide = table.pivot(index="level", columns="coef", values=column)
    return wide.reindex(index=names_in(table["level"]), columns=list(coefs)).to_numpy(dtype=float)


def _panels(
    table: pd.DataFrame, order: str, xlabels: Mapping[str, str], titles: Mapping[str, str]
) -> list[Panel]:
    """Return the panels of one term's table."""
    term, coefs, levels = table["term"].iloc[0], names_in(table["coef"]), names_in(table["level"])
    estimate, lower, upper = (
        effects_matrix(table, c, coefs) for c in ("estimate", "lower", "upper")
    )
    lines = table.get("population", pd.Series(0.0, table.index)).groupby(table["coef"]).first()
    ranks = np.argsort(estimate, axis=0, kind="stable")
    if order == "level":
        ranks[:] = np.arange(len(levels))[::-1, None]
    if order == "estimate":
        ranks[:] = ranks[:, :1]
    return [
        Panel(
            term=term,
            coef=coef,
            title=titles.get(term, term),
            xlabel=xlabels.get(coef, coef),
            levels=tuple(levels[i] for i in ranks[:, j]),
            estimate=estimate[ranks[:, j], j],
            lower=lower[ranks[:, j], j],
            upper=upper[ranks[:, j], j],
            population=float(lines[coef]),
            has_title=j == 0,
            has_names=j == 0 or order == "each",
        )
        for j, coef in enumerate(coefs)
    ]


def _groups(
    table: pd.DataFrame, coefs: tuple[str, ...], xlabels: Mapping[str, str], own_name: str
) -> Groups:
    """Return the groups of one term's table that have estimates of their own."""
    own, model, population, n = (
        effects_matrix(table, name, coefs) for name in ("own", "model", "population", "n")
    )
    kept, levels = np.isfinite(own).any(axis=1), names_in(table["level"])
    return Groups(
        term=table["term"].iloc[0],
        own_name=own_name,
        coefs=coefs,
        labels=tuple(xlabels.get(coef, coef) for coef in coefs),
        levels=tuple(compress(levels, kept)),
        own=own[kept],
        model=model[kept],
        population=population[kept],
        n=n[kept, 0],
        absent=tuple(compress(levels, ~kept)),
    )


def _covariance(matrix: pd.DataFrame | Array | None, coefs: tuple[str, ...]) -> Array | None:
    """Return the covariance of the coefficients that are drawn."""
    if isinstance(matrix, pd.DataFrame):
        matrix = matrix.loc[list(coefs), list(coefs)].to_numpy()
    return None if matrix is None else np.asarray(matrix, dtype=np.float64)
