"""Comparisons: how predictions of rows change as one predictor does, and their averages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise, product
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from ranef.arguments import check_choice, check_known
from ranef.design.data_frame import coded, open_frame
from ranef.design.design import Design
from ranef.design.new_data.new_rows import (
    NewRows,
    in_one_new_group,
    is_grouped,
    one_after_the_other,
)
from ranef.effects.linear_functions import (
    CHANGES,
    DIFFERENCE,
    Change,
    interval_words,
    is_drawn,
    of_changes,
    wanted_of,
)
from ranef.effects.reference_grid import check_predictors, given_values, names_of, reference_values
from ranef.errors import DataError, DataWarning, FitError, listed, warn
from ranef.fits.fit import Fit
from ranef.fits.predictions.asked_rows import GROUPS, asked_rows
from ranef.formula.terms import columns_of
from ranef.printing.frames import captioned

SPANS = ("sd", "2sd", "iqr", "minmax")  # of numbers
LEVELS = ("reference", "pairwise", "sequential")  # of factors

type Contrast = str | float | Sequence[Any] | None


@dataclass(frozen=True, eq=False)
class _Step:
    """A change of a predictor.

    Attributes
    ----------
    words : str
        What changes into what.
    before, after : object
        A value, or one for every row.
    """

    words: str
    before: Any
    after: Any

    def inside(self, own: pd.Series[Any]) -> _Step | None:
        """Return the change around the values of rows, as near to these as all data allow."""
        if not isinstance(self.before, np.ndarray):
            return None
        width, low, high = np.ptp([self.before[0], self.after[0]]), own.min(), own.max()
        if width > high - low:
            return None
        lower = np.clip(np.minimum(self.before, self.after), low, high - width)
        ends = (lower, np.minimum(lower + width, high))
        before, after = ends if self.after[0] > self.before[0] else ends[::-1]
        return replace(self, before=before, after=after)


def comparisons(
    fit: Fit,
    variable: str,
    *,
    contrast: Contrast = None,
    comparison: str = "difference",
    by: str | Sequence[str] = (),
    at: Mapping[str, Any] | None = None,
    average: bool = True,
    new_data: object = None,
    kind: str = "response",
    groups: str = "population",
    prob: float = 0.95,
    df: str | None = None,
) -> pd.DataFrame:
    """Return how the predicted response changes as a predictor changes and all others stay.

    Every row of the data is predicted twice, before and after the change. Where `contrasts` and
    `slopes` speak of means over a grid of predictors, these are averages over the rows as they
    are: with other links than the identity something else.

    Parameters
    ----------
    fit : PointFit or PosteriorFit
    variable : str
        A column of the data that the fixed effects use.
    contrast : number, str or pair of values, optional
        The change. Of a number by how much, around the value of each row, or as near to it as the
        data go where a spline or a logarithm has no value beyond: 1 by default (of a number
        with two values from one to the other), "sd", "2sd" (two standard deviations); or from
        the first quartile to the third, "iqr", from the smallest value to the largest, "minmax".
        Of a factor from the first level to each other one, "reference", the default; from each
        level to each later one, "pairwise"; or to the next one, "sequential". Of both, a pair
        `(a, b)`: from a to b.
    comparison : {"difference", "ratio", "lnratio", "lnor"}
        How the predictions after the change are compared with those before: their difference,
        ratio, logarithm of the ratio, or logarithm of the ratio of odds.
    by : str or sequence of str
        Columns whose levels have an average each, over their own rows.
    at : mapping of str to value or values, optional
        Values that predictors have in all rows, in place of their own.
    average : bool
        Whether rows are averaged before they are compared; or each row is compared by itself.
    new_data : DataFrame, optional
        The rows; those of the fit by default.
    kind : {"response", "link"}
        What is predicted.
    groups : {"population", "average", "known", "new"}
        Of which groups: a typical one, whose random effects are zero; the mean over all groups;
        each row in its own group; or of one new group, whose effects are drawn from their
        distribution, as of `means`. Of `new_data` those rows are of new groups whose level was not
        in the data, and all where the grouping factor is no column, as of `fit.predict`.
    prob, df
        As of `means`.

    Returns
    -------
    DataFrame
        The variables of `by` and `at`, and `row` where rows are not averaged; the `contrast` in
        words, `estimate`, `se`, `lower`, `upper`, `z` (or `df` and `t`) and `p_value`; of a
        posterior `sd` and the `probability` that the change is upwards. Errors of a point fit are
        those of the fixed effects, and of the random effects of groups that are known or new, by
        the delta method; with another link than the identity those of new groups are of draws, and
        intervals their quantiles. Of a ratio, interval and test are those of its logarithm.

    Notes
    -----
    These are `avg_comparisons` and `comparisons` of marginaleffects, with its names.

    Source: Arel-Bundock, Greifer & Heiss (2024), *Journal of Statistical Software* 111(9).

    Examples
    --------
    >>> import ranef as rf
    >>> data = rf.load_dataset("Contraception")
    >>> fit = rf.fit("use ~ age + urban + (1 | district)", data, family="binomial")
    >>> rf.comparisons(fit, "urban").round(3)
      contrast  estimate     se  lower  upper      z  p_value
    0    Y - N     0.156  0.028  0.101  0.211  5.567      0.0
    >>> rf.comparisons(fit, "age", contrast="sd", by="urban", comparison="ratio").round(3)
      urban contrast  estimate     se  lower  upper      z  p_value
    0     N      +sd     1.056  0.034  0.991  1.125  1.670    0.095
    1     Y      +sd     1.043  0.026  0.993  1.095  1.663    0.096
    """
    change = CHANGES[check_choice("comparison", comparison, CHANGES, "is not a comparison")]
    wanted = wanted_of(fit, kind, prob, df, groups)
    if kind == "link" and change is not DIFFERENCE and not fit.family.mean_is_eta:
        raise FitError(f"comparison={comparison!r} is of means: kind='response', not 'link'.")
    labels = [term.label for term in fit.design.terms if groups != "population"]
    values = reference_values(fit.design, labels)
    names, given = names_of("by=", by), given_values(at)
    check_predictors([variable, *given], values)
    if variable in given:
        raise FitError(
            f"`{variable}` is what changes: contrast=(from, to) gives its values, not at=."
        )
    frame = _rows(fit.design, new_data, names, groups)
    own = fit.design.rows.data.frame(offset=fit.design.recipe.offset)
    is_number = len(values[variable]) == 1
    steps = (_of_number if is_number else _of_levels)(contrast, own[variable], frame[variable])
    parts = zip(fit.design.terms, fit.design.recipe.random, strict=True)
    moved = {term.label for term, (part, _) in parts if variable in columns_of(part.group)}
    tables, drawn = [], False
    for key, rows in _settings(frame, given):
        keys, over = _averages(rows, names, average=average)
        for step in steps:
            after, before = _ends(fit.design, rows, step, own[variable], groups)
            if groups == "new" and new_data is None:
                after, before = in_one_new_group(after), in_one_new_group(before)
            both = one_after_the_other(after, before, moved)
            drawn = is_drawn(fit, wanted, both)
            numbers = of_changes(fit, both, wanted, change=change, average=over)
            words = {**key, "contrast": _in_words(step, change)}
            tables.append(pd.concat([keys.assign(**words), numbers], axis=1))
    table = pd.concat(tables, ignore_index=True)
    return captioned(table, interval=interval_words(fit, wanted, drawn=drawn))


def _ends(
    design: Design, rows: pd.DataFrame, step: _Step, own: pd.Series[Any], groups: str
) -> list[NewRows]:
    """Return the rows after and before a change, inside the data where it leads out of a domain."""

    def at(moved: _Step) -> list[NewRows]:
        ends = [rows.assign(**{str(own.name): value}) for value in (moved.after, moved.before)]
        return [asked_rows(design, end, groups) for end in ends]

    try:
        return at(step)
    except DataError:
        inside = step.inside(own)
        if inside is None:
            raise
        return at(inside)


def _rows(design: Design, new_data: object, by: Sequence[str], groups: str) -> pd.DataFrame:
    """Return the complete rows that are compared."""
    formula = design.formula
    if new_data is None:
        frame = design.rows.data.frame(offset=design.recipe.offset)
        check_known(by, frame, lambda name: f"by= has `{name}`, which the model does not use.")
    else:
        nodes, source = formula.factors(random=False), open_frame(new_data)
        for part in formula.random if groups != "population" else ():
            nodes += [factor for term in part.terms for factor in term.factors]
            nodes += part.group if is_grouped(part, source, GROUPS[groups]) else ()
        names = dict.fromkeys([*columns_of([*nodes, *formula.offsets]), *by])
        names |= {design.recipe.offset: None} if design.recipe.offset else {}
        frame = source.columns(dict.fromkeys(names, (0, 0)), formula.text)
    complete = frame.notna().all(axis=1)
    if not complete.all():
        gaps = [name for name in frame if frame[name].isna().any()]
        share = f"{(~complete).sum()} of {len(frame)} rows"
        warn(f"{share} left out for missing values in {listed(gaps)}.", DataWarning)
    if not complete.any():
        raise DataError("there is no complete row to compare.")
    return frame[complete]


def _settings(
    frame: pd.DataFrame, given: Mapping[str, Sequence[Any]]
) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Yield the combinations of the values of predictors, and the rows that have them."""
    for combination in product(*given.values()):
        key = dict(zip(given, combination, strict=True))
        yield key, frame.assign(**key)


def _averages(
    frame: pd.DataFrame, by: Sequence[str], *, average: bool
) -> tuple[pd.DataFrame, sparse.csr_array | None]:
    """Return the labels of averages, and the weight of each row in them."""
    n = len(frame)
    if not average:
        keys = frame[list(by)].reset_index(drop=True)
        keys.insert(0, "row", frame.index)
        return keys, None
    if not by:
        return pd.DataFrame(index=[0]), sparse.csr_array(np.full((1, n), 1 / n))
    grouped = frame.groupby(list(by), observed=True, sort=True)
    codes, counts = grouped.ngroup().to_numpy(), grouped.size()
    keys = counts.index.to_frame(index=False)
    weights = 1 / counts.to_numpy()[codes]
    return keys, sparse.csr_array((weights, (codes, np.arange(n))), shape=(len(keys), n))


def _of_number(contrast: Contrast, own: pd.Series[Any], values: pd.Series[Any]) -> list[_Step]:
    """Return the change of a number, around the values of rows or between two places."""
    x, old = values.to_numpy(dtype=np.float64), own.to_numpy(dtype=np.float64)
    if contrast is None:
        ends = np.unique(old)
        contrast = tuple(ends.tolist()) if len(ends) == 2 else 1
    if isinstance(contrast, str):
        check_choice("contrast", contrast, SPANS, f"is not a change of the number `{own.name}`")
        if contrast == "iqr":
            return [_Step("Q3{}Q1", *np.quantile(old, [0.25, 0.75]))]
        if contrast == "minmax":
            return [_Step("max{}min", old.min(), old.max())]
        reach = (0.5 if contrast == "sd" else 1.0) * old.std(ddof=1)
        return [_Step(f"+{contrast}", x - reach, x + reach)]
    if isinstance(contrast, Real):
        step = _finite(contrast)
        if not step:
            raise FitError("contrast=0 changes nothing: give a number other than zero.")
        return [_Step(f"{step:+g}", x - step / 2, x + step / 2)]
    before, after = map(_finite, _pair(contrast))
    return [_Step(f"{after:g}{{}}{before:g}", before, after)]


def _of_levels(contrast: Contrast, own: pd.Series[Any], values: pd.Series[Any]) -> list[_Step]:  # noqa: ARG001
    """Return the changes of a factor."""
    levels = coded(str(own.name), own).levels.tolist()
    if contrast is None or isinstance(contrast, str):
        fault = f"is not a change of the factor `{own.name}`"
        pairs = {
            "reference": [(levels[0], level) for level in levels[1:]],
            "pairwise": list(combinations(levels, 2)),
            "sequential": list(pairwise(levels)),
        }[check_choice("contrast", contrast or "reference", LEVELS, fault)]
    else:
        pairs = [_pair(contrast)]
        check_known(pairs[0], levels, lambda name: f"{name!r} is not a level of `{own.name}`.")
    return [_Step(f"{after}{{}}{before}", before, after) for before, after in pairs]


def _pair(contrast: Any) -> tuple[Any, Any]:
    """Return two different values, or refuse what they are not."""
    is_sequence = isinstance(contrast, Sequence | np.ndarray | pd.Index)
    if not is_sequence or len(contrast) != 2 or contrast[0] == contrast[1]:
        raise FitError(
            "contrast= is a number, a pair of different values (from, to), or one of "
            f"{listed([*SPANS, *LEVELS], last='or', limit=9)}, got {contrast!r}."
        )
    return contrast[0], contrast[1]


def _finite(number: object) -> float:
    if isinstance(number, bool) or not isinstance(number, Real) or not np.isfinite(float(number)):
        raise FitError(f"contrast= has {number!r}, which is not a finite number.")
    return float(number)


def _in_words(step: _Step, change: Change) -> str:
    """Return a change in words: `B - A`, or `B / A` of a ratio."""
    return step.words.format(" - " if change is DIFFERENCE else " / ")
