"""Pairs of random effects: what groups that deviate in one coefficient do in another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Unpack

import numpy as np
import pandas as pd

from ranef._typing import Array, Axes, Panels, Size, Style
from ranef.errors import DataError
from ranef.plots import canvas
from ranef.plots.by_group.arrows import REGION_PROBABILITIES, REGIONS
from ranef.plots.by_group.name_places import Room, at_ends, settle, write_names
from ranef.plots.random_effects import effects_matrix, names_in, term_table

PANEL = 2.9  # inches, of one of several


def pairs(
    table: pd.DataFrame,
    *,
    covariance: pd.DataFrame | None = None,
    centre: pd.Series[float] | None = None,
    xlabels: Mapping[str, str] | None = None,
    title: str = "",
    **style: Unpack[Style],
) -> Panels:
    """Draw the coefficients of a term against each other, one panel a pair.

    Parameters
    ----------
    table : DataFrame
        Columns `term, level, coef, estimate`, of one term.
    covariance : DataFrame, optional
        Of the coefficients, for the ellipses that hold 50 % and 95 % of groups.
    centre : Series, optional
        Their middle by coefficient, zero by default.
    xlabels : mapping of str to str, optional
        What stands at the axis of a coefficient; its name by default.
    title : str
        What the term is called.
    ax : Axes or several Axes, optional
        One for each pair. By default a new figure is made, of three and more coefficients the
        lower half of a matrix.
    figsize : tuple of float, optional
        Width and height of a new figure in inches.

    Returns
    -------
    ndarray of Axes, shape (pairs,)
        Row by row of the matrix.

    Raises
    ------
    DataError
        If the table lacks a column, or the term has one coefficient only.
    RanefError
        If the number of axes is wrong.

    Examples
    --------
    >>> table = pd.DataFrame({"term": "g", "level": [*"ab"] * 2, "coef": ["x"] * 2 + ["z"] * 2,
    ...                       "estimate": [1.0, -1, 2, -2]})
    >>> (panel,) = pairs(table)
    >>> panel.get_xlabel(), panel.get_ylabel()
    ('x', 'z')
    """
    name = names_in(table["term"])[0]
    mine = term_table(table, name)
    coefs, levels = list(names_in(mine["coef"])), names_in(mine["level"])
    if len(coefs) < 2:
        raise DataError(
            f"the term `{name}` has one coefficient, `{coefs[0]}`, and so no pair: see the "
            "caterpillar plot."
        )
    values = effects_matrix(mine, "estimate", coefs)
    places = [(j, i) for i in range(1, len(coefs)) for j in range(i)]
    titles = [f"{coefs[j]}, {coefs[i]}" for j, i in places]
    axes = canvas.axes_of(titles, partial(_new_axes, places), **style)
    zeros = pd.Series(0.0, index=coefs)
    middle = np.asarray((zeros if centre is None else centre.loc[coefs]), dtype=np.float64)
    cov = None if covariance is None else covariance.loc[coefs, coefs].to_numpy(dtype=float)
    labels = [(xlabels or {}).get(coef, coef) for coef in coefs]
    for one, (j, i) in zip(axes, places, strict=True):
        chosen = [j, i]
        part = None if cov is None else cov[np.ix_(chosen, chosen)]
        _draw_pair(one, values[:, chosen], middle[chosen], part)
        is_matrix = style.get("ax") is None and len(coefs) > 2
        canvas.label_x(one, labels[j] if i == len(coefs) - 1 or not is_matrix else "")
        canvas.label_y(one, labels[i] if j == 0 or not is_matrix else "")
    has_legend = cov is not None and bool(np.any(cov))
    canvas.draw_title(axes[0], title or name, len(levels), pad=22.0 if has_legend else 6.0)
    if has_legend:
        _add_legend(axes[0])
    settle(axes[0])
    for one, place in zip(axes, places, strict=True):
        _name(one, levels, values[:, list(place)])
    return axes


def _new_axes(places: list[tuple[int, int]], figsize: Size | None) -> Panels:
    rows = places[-1][1]
    side = 5.6 if rows == 1 else PANEL * rows
    figure = canvas.new_figure((side, side + 0.3), figsize)
    grid = figure.add_gridspec(rows, rows)
    return np.array([figure.add_subplot(grid[i - 1, j]) for j, i in places], dtype=object)


def _draw_pair(axes: Axes, values: Array, centre: Array, cov: Array | None) -> None:
    if cov is not None and np.any(cov):
        for prob in REGION_PROBABILITIES:
            axes.plot(
                *canvas.ellipse(centre, cov, prob).T, color=canvas.GREY, linewidth=0.8, zorder=1.2
            )
    axes.axvline(centre[0], color=canvas.GREY, linewidth=0.6, alpha=0.6, zorder=1)
    axes.axhline(centre[1], color=canvas.GREY, linewidth=0.6, alpha=0.6, zorder=1)
    size = _size(axes, len(values))
    axes.plot(*values.T, "o", color=canvas.ACCENT, markersize=size, zorder=3)
    axes.spines[["top", "right"]].set_visible(False)


def _size(axes: Axes, m: int) -> float:
    return max(canvas.mark_sizes(axes, m)[0], 2.0)


def _name(axes: Axes, levels: Sequence[str], values: Array) -> None:
    """Name all groups where they are few, else those at the ends of both coefficients."""
    few = len(levels) <= canvas.MAX_NAMED_POINTS
    chosen = list(range(len(levels))) if few else at_ends(values)
    room = Room(axes, values, radius=_size(axes, len(levels)) / 2)
    write_names(room, [levels[i] for i in chosen], values[chosen])


def _add_legend(axes: Axes) -> None:
    from matplotlib.lines import Line2D

    line = Line2D([], [], color=canvas.GREY, linewidth=0.8, label=REGIONS)
    axes.legend(handles=[line], **canvas.LEGEND_ABOVE)
