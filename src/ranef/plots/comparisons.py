"""Draw a comparison of models: Bayes factors by prior scale, elpd, and elpd group by group.

Each plot takes a tidy table, so that any table made by hand can be drawn too, on given axes or on
a new figure; more than one axes are a `RanefError`. Matplotlib loads with the first plot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
import pandas as pd

from ranef._typing import Array, Axes, Style
from ranef.errors import DataError, listed
from ranef.plots import canvas
from ranef.plots.curves.densities import draw_density

SENSITIVITY_COLUMNS = ("model", "scale", "log_bf", "mcse")
GROUP_COLUMNS = ("level", "difference")
ELPD_COLUMNS = ("model", "elpd", "se", "elpd_diff", "se_diff")
DENSITY_COLUMNS = ("value", "posterior", "prior")

# The colour-blind-safe palette of Okabe and Ito, without black and yellow.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MAX_UNDECIDED_LOG_BF = math.log(3.0)  # below, it is "not worth more than a bare mention"
MAX_DRAWN_LOG_BF = math.log(1000.0)  # beyond, a Bayes factor is overwhelming whatever it is
MAX_HIDDEN_ERROR = 0.02  # of a logarithm, that a line hides
TICK_STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500)  # in powers of ten
MAX_TICKS = 7  # of powers of ten
MAX_POWERS_WITH_THREES = 3.5  # powers of ten of an axis that also marks 3 and 30
LABEL_POINTS = 12.0  # height of a label at the end of a line
MAX_NAMED_MODELS = 3  # of the models that are not drawn
MAX_TITLE_CHARACTERS = 40  # of two names that share a line
MAX_PRIOR_HEIGHT = 2.0  # relative to the posterior


def sensitivity(
    table: pd.DataFrame, *, of: str = "all random-effect sds", **style: Unpack[Style]
) -> Axes:
    """Draw Bayes factors by the scale of the priors of some parameters.

    Parameters
    ----------
    table : DataFrame
        Columns `model, scale, log_bf, mcse`: the logarithm of the Bayes factor against the best
        model with priors this many times as wide, and its Monte Carlo standard error.
    of : str
        The parameters whose priors are scaled.
    ax : Axes, optional
        By default a new figure is made.
    figsize : tuple of float, optional
        Of a new figure, in inches.

    Returns
    -------
    Axes
        Shaded is where a Bayes factor decides nothing, from 1/3 to 3. Bands around the lines are
        two standard errors wide to either side. Models that stay below 1/1000 are not drawn but
        named, as long as two others are.

    Raises
    ------
    DataError
        The table is empty, lacks a column, or holds what is not a number.

    References
    ----------
    Kass and Raftery (1995), "Bayes factors", Journal of the American Statistical Association 90:
    773-795.

    Examples
    --------
    >>> table = pd.DataFrame(
    ...     {"model": ["a", "a", "b", "b"], "scale": [0.5, 2.0] * 2,
    ...      "log_bf": [0.0, 0.0, -0.5, -2.0], "mcse": 0.0})
    >>> print(sensitivity(table).get_ylabel())
    Bayes factor
    against a
    """
    _check_finite(table, SENSITIVITY_COLUMNS, "model")
    lines = {str(name): line.sort_values("scale") for name, line in table.groupby("model")}
    ends = {name: float(line["log_bf"].iloc[-1]) for name, line in lines.items()}
    by_end = sorted(ends, key=ends.__getitem__)
    omitted = [name for name in lines if lines[name]["log_bf"].max() < -MAX_DRAWN_LOG_BF]
    drawn = [name for name in by_end if name not in omitted]
    if len(drawn) < 2:
        drawn, omitted = by_end, []
    axes = canvas.one_axes("sensitivity", (4.6 + canvas.labels_width(drawn), 3.8), **style)
    _set_scales(axes, table["scale"].to_numpy(dtype=float))
    _set_bayes_factors(axes, [lines[name] for name in drawn])
    colours = dict(zip(reversed(drawn), COLOURS * len(drawn), strict=False))
    for name in drawn:
        _draw_line(axes, lines[name], colours[name])
    _name_lines(axes, {name: ends[name] for name in drawn}, colours)
    best = [name for name, line in lines.items() if not line["log_bf"].any()]
    against = canvas.short(best[0]) if best else "the best"
    canvas.label_y(axes, f"Bayes factor\nagainst {against}")
    canvas.label_x(axes, f"scale of the priors of {of}")
    if omitted:
        _note_above(axes, f"below 1/1000 throughout: {_first_names(omitted)}", "left")
    return axes


def group_differences(
    table: pd.DataFrame, *, names: tuple[str, str] | None = None, **style: Unpack[Style]
) -> Axes:
    """Draw by how much each group is predicted better by one model than by another.

    Parameters
    ----------
    table : DataFrame
        Columns `level, difference`: the group, and the elpd of the first model less the elpd of the
        second.
    names : tuple of str, optional
        The two models.
    ax : Axes, optional
        By default a new figure is made.
    figsize : tuple of float, optional
        Of a new figure, in inches.

    Returns
    -------
    Axes
        The groups in the order of their differences, in full colour where they speak for the first
        model. Under the title stands the sum with its standard error, and the sum without the
        group that it owes most to.

    Raises
    ------
    DataError
        The table is empty, lacks a column, or holds what is not a number.

    Examples
    --------
    >>> table = pd.DataFrame({"level": ["308", "309", "310"], "difference": [2.0, -0.5, 0.1]})
    >>> group_differences(table, names=("a", "b")).get_title(loc="left")
    'a against b, 3 groups'
    """
    _check_finite(table, GROUP_COLUMNS, "level")
    ordered = table.sort_values("difference", kind="stable")
    difference = ordered["difference"].to_numpy(dtype=float)
    levels, m = [str(level) for level in ordered["level"]], len(ordered)
    first, second = names or ("first model", "second model")
    axes = canvas.one_axes(
        "groups", (4.6 + canvas.labels_width(levels), canvas.rows_height(m) + 0.4), **style
    )
    rows, (size, width) = np.arange(m, dtype=float), canvas.mark_sizes(axes, m)
    colours = np.where(difference > 0, canvas.ACCENT, canvas.TINT)
    axes.axvline(0.0, color=canvas.GREY, linewidth=0.8, zorder=1)
    axes.hlines(rows, 0.0, difference, color=colours, linewidth=width, zorder=2)
    axes.scatter(difference, rows, s=size**2, color=colours, zorder=3)
    canvas.name_rows(axes, levels, m)
    canvas.strip(axes, "x")
    canvas.label_x(axes, f"difference in elpd\n(positive: {canvas.short(first)} predicts better)")
    space = " " if len(first + second) <= MAX_TITLE_CHARACTERS else "\n"
    pair = f"{canvas.short(first)}{space}against {canvas.short(second)}"
    title = f"{pair}, {m} group{'' if m == 1 else 's'}"
    axes.set_title(title, loc="left", pad=20.0, fontsize="medium", parse_math=False)
    _note_above(axes, _sums(levels, difference), "left")
    return axes


def elpd(table: pd.DataFrame, **style: Unpack[Style]) -> Axes:
    """Draw the elpd of models: the difference to the best, with its standard error.

    Parameters
    ----------
    table : DataFrame
        Columns `model, elpd, se, elpd_diff, se_diff`, one row a model.
    ax : Axes, optional
        By default a new figure is made.
    figsize : tuple of float, optional
        Of a new figure, in inches.

    Returns
    -------
    Axes
        The best model on top. Intervals are one and two standard errors of the difference wide to
        either side; the numbers stand beside them.

    Raises
    ------
    DataError
        The table is empty, lacks a column, or holds what is not a number.

    Examples
    --------
    >>> table = pd.DataFrame(
    ...     {"model": ["a", "b"], "elpd": [-885.0, -904.5], "se": [25.7, 20.0],
    ...      "elpd_diff": [0.0, -19.5], "se_diff": [0.0, 8.9]})
    >>> [label.get_text() for label in elpd(table).get_yticklabels()]
    ['b', 'a']
    """
    _check_finite(table, ELPD_COLUMNS, "model")
    ordered = table.sort_values("elpd", kind="stable")
    models, m = [str(model) for model in ordered["model"]], len(ordered)
    difference, se = (ordered[c].to_numpy(dtype=float) for c in ("elpd_diff", "se_diff"))
    best = ordered.iloc[-1]
    axes = canvas.one_axes(
        "models", (5.0 + canvas.labels_width(models), canvas.rows_height(m) + 0.1), **style
    )
    rows, (size, width) = np.arange(m, dtype=float), canvas.mark_sizes(axes, m)
    axes.axvline(0.0, color=canvas.GREY, linewidth=0.8, zorder=1)
    for reach, factor in ((2.0, 1.0), (1.0, 2.0)):
        ends = difference - reach * se, difference + reach * se
        axes.hlines(rows, *ends, color=canvas.TINT, linewidth=factor * width, zorder=2)
    axes.plot(difference, rows, "o", color=canvas.ACCENT, markersize=size, zorder=3)
    canvas.name_rows(axes, models, m)
    canvas.strip(axes, "x")
    for row, (d, s) in enumerate(zip(difference[:-1], se[:-1], strict=True)):
        text = f"{_number(d)} (se {s:.1f})"
        _write_right(axes, text, row, offset=(6.0, 0.0), color=canvas.GREY, fontsize="small")
    words = (
        f"difference in elpd to {canvas.short(models[-1])},\nwhose elpd is {_number(best['elpd'])}"
    )
    canvas.label_x(axes, f"{words} (se {best['se']:.1f})")
    return axes


def posterior_and_prior(
    table: pd.DataFrame, *, name: str = "", null: float | None = 0.0, **style: Unpack[Style]
) -> Axes:
    """Draw the posterior density of a parameter over its prior density.

    Parameters
    ----------
    table : DataFrame
        Columns `value, posterior, prior`: the densities at increasing values.
    name : str
        The label of the axis.
    null : float, optional
        The value at which a smaller model fixes the parameter. Where it is among the values, or
        next to their end, both densities are marked there: their ratio is the Bayes factor of the
        smaller model against the larger (Dickey 1971), if all other priors agree.
    ax : Axes, optional
        By default a new figure is made.
    figsize : tuple of float, optional
        Of a new figure, in inches.

    Returns
    -------
    Axes

    Raises
    ------
    DataError
        The table is empty, lacks a column, or holds what is not a number.

    References
    ----------
    Dickey (1971), "The weighted likelihood ratio, linear hypotheses on normal location
    parameters", Annals of Mathematical Statistics 42: 204-223.

    Examples
    --------
    >>> value = np.linspace(0, 4, 50)
    >>> table = pd.DataFrame(
    ...     {"value": value, "posterior": value * np.exp(-value), "prior": np.exp(-value)})
    >>> posterior_and_prior(table, name="sd of Days").get_xlabel()
    'sd of Days'
    """
    _check_finite(table, DENSITY_COLUMNS, "value")
    table = table.sort_values("value")
    value, posterior, prior = (table[c].to_numpy(dtype=float) for c in DENSITY_COLUMNS)
    axes = canvas.one_axes("densities", (5.2, 3.2), **style)
    draw_density(axes, table, {})
    top = max(posterior.max(), min(prior.max(), MAX_PRIOR_HEIGHT * posterior.max()))
    axes.set_ylim(0.0, 1.08 * top)
    marked = null is not None and _reaches(value, null)
    axes.set_xlim(min(value[0], null) if marked else value[0], value[-1])
    canvas.label_x(axes, name)
    canvas.label_y(axes, "density")
    axes.legend(ncols=2, **canvas.LEGEND_ABOVE)
    if null is not None and marked:
        _mark_null(axes, null, [float(np.interp(null, value, d)) for d in (posterior, prior)])
    return axes


# ------------------------------------------------------------------------- elements of the plots


def _check_finite(table: pd.DataFrame, columns: Sequence[str], label: str) -> None:
    """Refuse a table that lacks a column or a number, named by its row's label."""
    for name in [column for column in columns if column not in ("model", "level")]:
        finite = np.isfinite(pd.to_numeric(table[name], errors="coerce"))
        if not finite.all():
            rows = listed(dict.fromkeys(table[label][~finite]))
            raise DataError(f"The column `{name}` must be finite numbers; it is not for {rows}.")


def _write_right(
    axes: Axes, text: str, y: float, offset: tuple[float, float], **style: Any
) -> None:
    """Write text to the right of the axes at a height, moved by an offset in points."""
    axes.annotate(
        text, (1.0, y), xycoords=axes.get_yaxis_transform(), xytext=offset,
        textcoords="offset points", ha="left", va="center", parse_math=False,
        annotation_clip=False, **style,
    )  # fmt: skip


def _set_scales(axes: Axes, scale: Array) -> None:
    axes.set_xscale("log", base=2)
    low, high = math.ceil(math.log2(scale.min())), math.floor(math.log2(scale.max()))
    powers = range(low, high + 1, max(1, (high - low) // 8))
    axes.set_xticks([2.0**n for n in powers], [_fraction(2, n) for n in powers])
    axes.set_xticks([], minor=True)
    axes.set_xlim(scale.min(), scale.max())


def _fraction(base: int, power: int) -> str:
    """Write a power as a whole number, or as one over a whole number."""
    return str(base**power) if power >= 0 else f"1/{base**-power}"


def _set_bayes_factors(axes: Axes, lines: Sequence[pd.DataFrame]) -> None:
    """Set the limits and ticks of log Bayes factors, and shade the ones that decide nothing."""
    values = np.concatenate([line["log_bf"].to_numpy(dtype=float) for line in lines])
    maxima = sorted(float(line["log_bf"].max()) for line in lines)
    floor = min([-MAX_DRAWN_LOG_BF, *maxima[:-1]])
    low = min(-MAX_UNDECIDED_LOG_BF, max(values.min(), floor))
    high = max(MAX_UNDECIDED_LOG_BF, values.max())
    pad = 0.05 * (high - low)
    axes.set_ylim(low - pad, high + pad)
    ticks = _ladder((low - pad) / math.log(10.0), (high + pad) / math.log(10.0))
    axes.set_yticks(list(ticks), list(ticks.values()))
    undecided = (-MAX_UNDECIDED_LOG_BF, MAX_UNDECIDED_LOG_BF)
    axes.axhspan(*undecided, color=canvas.GREY, alpha=0.1, linewidth=0.0, zorder=0)
    axes.axhline(0.0, color=canvas.GREY, linewidth=0.8, zorder=1)
    axes.spines[["top", "right"]].set_visible(False)


def _ladder(low: float, high: float) -> dict[float, str]:
    """Return log Bayes factors to mark and their names, between two powers of ten.

    Examples
    --------
    >>> list(_ladder(-1.8, 0.6).values())
    ['1/30', '1/10', '1/3', '1', '3']
    """
    steps = (n for n in TICK_STEPS if (high - low) / n <= MAX_TICKS)
    step = next(steps, math.ceil((high - low) / MAX_TICKS))
    powers = [n for n in range(math.ceil(low), math.floor(high) + 1) if n % step == 0]
    ladder = {float(n): _fraction(10, n) if abs(n) < 5 else f"$10^{{{n}}}$" for n in powers}
    if high - low <= MAX_POWERS_WITH_THREES:
        threes = {math.log10(3.0) + n: str(3 * 10**n) for n in range(5)}
        ladder |= threes | {-log10: f"1/{name}" for log10, name in threes.items()}
    within = {log10: name for log10, name in ladder.items() if low <= log10 <= high}
    return {log10 * math.log(10.0): within[log10] for log10 in sorted(within)}


def _draw_line(axes: Axes, line: pd.DataFrame, colour: str) -> None:
    x, y, error = (line[c].to_numpy(dtype=float) for c in ("scale", "log_bf", "mcse"))
    axes.plot(x, y, color=colour, linewidth=1.6, zorder=3)
    if error.max() > MAX_HIDDEN_ERROR:
        axes.fill_between(
            x, y - 2 * error, y + 2 * error, color=colour, alpha=0.2, linewidth=0.0, zorder=2
        )


def _name_lines(axes: Axes, ends: dict[str, float], colours: dict[str, str]) -> None:
    """Write names at the right ends of lines, moved apart where the lines are close."""
    low, high = axes.get_ylim()
    points_per_unit = axes.bbox.height * 72.0 / axes.figure.dpi / (high - low)
    y = np.clip(np.array(list(ends.values())), low, high)
    heights = (y - low) * points_per_unit
    offsets = _spread(heights, LABEL_POINTS) - heights
    for name, end, offset in zip(ends, y, offsets, strict=True):
        _write_right(
            axes, canvas.short(name), end, (5.0, offset), color=colours[name], fontsize=9.0
        )


def _spread(heights: Array, gap: float) -> Array:
    """Move increasing heights as little as possible so that they lie a gap or more apart.

    Examples
    --------
    >>> _spread(np.array([0.0, 1.0, 30.0]), 10.0)
    array([-4.5,  5.5, 30. ])
    """
    from scipy.optimize import isotonic_regression

    steps = gap * np.arange(len(heights))
    return np.asarray(isotonic_regression(heights - steps).x + steps)


def _sums(levels: Sequence[str], difference: Array) -> str:
    """Return the sum of differences, and the sum without the level that it owes most to."""
    m, total = len(difference), float(difference.sum())
    if m == 1:
        return f"sum {_number(total)}"
    se = math.sqrt(m) * float(difference.std(ddof=1))
    largest = int(np.argmax(difference * np.sign(total)))
    without = f"without {canvas.short(levels[largest])}: {_number(total - difference[largest])}"
    return f"sum {_number(total)} (se {se:.1f}); {without}"


def _number(value: float) -> str:
    return f"{value:.1f}".replace("-", "\N{MINUS SIGN}")


def _first_names(names: Sequence[str]) -> str:
    text = ", ".join(canvas.short(name) for name in names[:MAX_NAMED_MODELS])
    more = len(names) - MAX_NAMED_MODELS
    return f"{text} and {more} more" if more > 0 else text


def _note_above(axes: Axes, text: str, side: str) -> None:
    corner = (0.0 if side == "left" else 1.0, 1.0)
    canvas.note(axes, text, corner, xytext=(0.0, 5.0), ha=side, va="bottom")


def _reaches(value: Array, null: float) -> bool:
    """Whether increasing values, with one more step at either end, reach a null value."""
    steps = np.diff(value)[[0, -1]] if len(value) > 1 else np.zeros(2)
    return bool(value[0] - steps[0] <= null <= value[-1] + steps[1])


def _mark_null(axes: Axes, null: float, densities: Sequence[float]) -> None:
    posterior, prior = densities
    for density, colour in ((posterior, canvas.ACCENT), (prior, canvas.ink(axes))):
        axes.plot(null, density, "o", color=colour, markersize=5, clip_on=False, zorder=4)
    if prior > 0:
        text = f"at {null:g}, posterior / prior = {posterior / prior:.2g}"
        _note_above(axes, text, "right")
