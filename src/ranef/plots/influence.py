"""Draw what leaving groups out changes: a row for each group, a panel for each number.

The plot takes a tidy table, so that any table made by hand can be drawn too, on given axes or on a
new figure. Matplotlib loads with the first plot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import numpy as np
import pandas as pd

from ranef._typing import Array, Axes, Panels, Style
from ranef.arguments import check_known
from ranef.errors import RanefError
from ranef.plots import canvas

HEADS = {
    "cook": "Cook's distance",
    "elpd": "log density of the group,\ngiven all others",
    "p": "log density gained by\nknowing the group",
}
BESIDES = ("level", "n", "khat", *HEADS)  # columns that are no parameters
CUT = 4.0  # over the number of units: a Cook's distance that is worth a look
MAX_PANELS = 4  # that are chosen, with Cook's distance


def influence(
    table: pd.DataFrame,
    *,
    what: str | Sequence[str] | None = None,
    scale: pd.Series[float] | None = None,
    labels: bool | str = "auto",
    **style: Unpack[Style],
) -> Panels:
    """Draw the changes of estimates as groups are left out.

    Parameters
    ----------
    table : DataFrame
        Columns `level, cook` and one for each parameter, with its change.
    what : str or sequence of str, optional
        The columns that get a panel; by default Cook's distance and the parameters that change
        most for their scale.
    scale : Series, optional
        By parameter, what a change is compared with where panels are chosen.
    labels : bool or "auto"
        Whether the rows have names.
    ax : Axes or sequence of Axes, optional
        One for each panel; by default a new figure is made.
    figsize : tuple of float, optional
        Width and height of the new figure, in inches.

    Returns
    -------
    ndarray of Axes
        The groups are ordered by Cook's distance, the largest on top; the dotted line is at four
        over their number. Of many groups only the extremes are named.

    Raises
    ------
    DataError
        If the table is empty or lacks a column.
    RanefError
        If the number of axes is not that of the panels.

    References
    ----------
    Bollen & Jackman (1990), in *Modern Methods of Data Analysis*, 257-291 (4/n); Nieuwenhuis, te
    Grotenhuis & Pelzer (2012), *The R Journal* 4(2), 38-47 (of groups).

    Examples
    --------
    >>> table = pd.DataFrame({"level": ["A", "B"], "cook": [0.1, 0.9], "Days": [1.0, -2.0]})
    >>> [axes.get_xlabel().split() for axes in influence(table)]
    [["Cook's", 'distance'], ['change', 'of', 'Days']]
    """
    columns = _chosen(table, what, scale)
    order = "cook" if table["cook"].notna().any() else columns[0]
    ordered = table.sort_values(order, key=np.abs, na_position="first", kind="stable")
    levels, m = [str(level) for level in ordered["level"]], len(ordered)
    width = canvas.labels_width(levels) + (4.4 if len(columns) == 1 else 2.5 * len(columns))
    width = min(width, canvas.WIDEST)
    heads = [HEADS.get(name, name) for name in columns]
    grid = canvas.panels_of(heads, lambda *_: (width, canvas.rows_height(m) + 0.3), **style)
    for j, (axes, name) in enumerate(zip(grid, columns, strict=True)):
        _draw(axes, levels, ordered[name].to_numpy(dtype=float), name)
        canvas.name_rows(axes, levels if j == 0 else (), m, labels=labels)
        if j and m > canvas.MAX_NAMED_ROWS:  # the first panel has its ends named
            canvas.name_largest(axes, levels, ordered[name].to_numpy(dtype=float))
        canvas.strip(axes, "x")
    unit = table.attrs.get("unit", "group")
    title = f"{unit}, {m} left out one at a time"
    grid[0].set_title(title, loc="left", fontsize="medium", parse_math=False)
    missing = table.attrs.get("failed", {})
    if missing:
        said = f"{len(missing)} without which no model could be fitted"
        canvas.note(grid[0], said, (0.0, 0.0), xytext=(2.0, 2.0), ha="left", va="bottom")
    return grid


def _chosen(
    table: pd.DataFrame, what: str | Sequence[str] | None, scale: pd.Series[float] | None
) -> list[str]:
    """Return the columns that get a panel."""
    numbers = [str(name) for name in table.columns if name not in ("level", "n")]
    if what is not None:
        asked = [what] if isinstance(what, str) else list(what)
        check_known(
            asked,
            numbers,
            lambda name: f"there is nothing called {name!r} to draw.",
            error=RanefError,
        )
        return asked or numbers[:1]
    parameters = [name for name in numbers if name not in BESIDES]
    sizes = table[parameters].abs().max()
    if scale is not None:
        sizes = sizes / scale.reindex(parameters).replace(0.0, np.nan)
    first = ["cook"] if table["cook"].notna().any() else []
    room = MAX_PANELS - len(first)
    kept = set(sizes.dropna().sort_values(ascending=False, kind="stable").index[:room])
    return first + [name for name in parameters if name in kept] or numbers[:1]


def _draw(axes: Axes, levels: Sequence[str], values: Array, name: str) -> None:
    m = len(levels)
    rows, (size, width) = np.arange(m, dtype=float), canvas.mark_sizes(axes, m)
    start = 0.0
    if name == "elpd":
        start = float(np.nanmax(values)) if np.isfinite(values).any() else 0.0
    axes.axvline(start, color=canvas.GREY, linewidth=0.8, zorder=1)
    colour = (
        np.where(values > CUT / m, canvas.ACCENT, canvas.TINT) if name == "cook" else canvas.ACCENT
    )
    axes.hlines(rows, start, values, color=canvas.TINT, linewidth=width, zorder=2)
    axes.scatter(values, rows, s=size**2, color=colour, zorder=3)
    if name == "cook" and np.nanmax(values, initial=0.0) > CUT / m:
        axes.axvline(CUT / m, color=canvas.GREY, linewidth=0.8, linestyle=":", zorder=1.5)
    axes.locator_params(axis="x", nbins=4, min_n_ticks=2)
    canvas.label_x(axes, HEADS.get(name, f"change of\n{canvas.short(name)}"))
