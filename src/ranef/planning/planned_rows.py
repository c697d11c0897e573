"""The design of rows that have no response yet, and of more or fewer groups than there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ranef.arguments import check_counts
from ranef.design.data_frame import open_frame
from ranef.design.design import Design, build_design, full_rank
from ranef.design.evaluate import Functions, callables
from ranef.errors import FitError, listed
from ranef.families.family import Family
from ranef.families.names import find_family
from ranef.formula.syntax import Call, Column
from ranef.formula.terms import columns_of, read_formula
from ranef.formula.updates import updated
from ranef.numerics.memory import check_memory

PLACEHOLDER = {"unit": 0.5}  # a response that a family with this support can take; others take 1


@dataclass(frozen=True, eq=False)
class Plan:
    """A model of rows without a response.

    Attributes
    ----------
    formula : str
    frame : DataFrame
        The rows: predictors, grouping factors, what weights and offset name.
    family : Family
    weights, offset : str or array of shape (n,), optional
    functions : mapping of str to callable
    """

    formula: str
    frame: pd.DataFrame
    family: Family
    weights: str | ArrayLike | None = None
    offset: str | ArrayLike | None = None
    functions: Functions | None = None

    @classmethod
    def of(cls, formula: str, design: object, family: str | Family, **options: Any) -> Plan:
        """Return the plan of a user's arguments."""
        source = open_frame(design)
        names = dict.fromkeys(source.names, (0, 0))
        link = options.pop("link", None)
        return cls(formula, source.columns(names, formula), find_family(family, link), **options)

    def design(self, formula: str | None = None, frame: pd.DataFrame | None = None) -> Design:
        """Return the design, X of full rank, with a response that says nothing.

        Parameters
        ----------
        formula : str, optional
            Another one of the same response.
        frame : DataFrame, optional
            Other rows.
        """
        functions = callables(self.functions)
        read = read_formula(self.formula if formula is None else formula, functions)
        rows = (self.frame if frame is None else frame).copy()
        response = read.response
        if isinstance(response, Call) and response.function == "cbind" and self.weights is None:
            absent = [name for name in columns_of(response.args[:1]) if name not in rows]
            rows[absent] = 0
        else:
            label = str(response)
            if not isinstance(response, Column):
                read = read_formula(updated(read, f"`{label}` ~ .", functions), functions)
            rows[label] = PLACEHOLDER.get(self.family.support, 1.0)
        return full_rank(
            build_design(
                read,
                rows,
                family=self.family,
                weights=self.weights,
                offset=self.offset,
                missing="raise",
                functions=functions,
            )
        )


# ----------------------------------------------------------------- more and fewer rows and groups


def extended(frame: pd.DataFrame, factor: str, n: int) -> pd.DataFrame:
    """Return rows with n groups: copies of the groups that there are, or some of them.

    Parameters
    ----------
    frame : DataFrame
    factor : str
        The column of the grouping factor.
    n : int
        The number of groups, which are called 1 to n.

    Notes
    -----
    Groups are taken in equal numbers; of a part of them, those that are spread evenly over all in
    the order of the values that are the same within a group, such as its treatment. A column of
    labels that is nested in the factor gets other labels with every copy.

    Examples
    --------
    >>> frame = pd.DataFrame({"g": list("aabb"), "arm": [0, 0, 1, 1], "x": [1, 2, 1, 2]})
    >>> extended(frame, "g", 3)["arm"].tolist()
    [0, 0, 1, 1, 0, 0]
    """
    codes, levels = pd.factorize(frame[factor], sort=True)
    m = len(levels)
    order = _by_profile(frame, factor, codes)
    rest = order[(np.arange(n % m) * m) // max(n % m, 1)]
    taken = np.concatenate([np.tile(np.arange(m), n // m), rest])
    places = [np.flatnonzero(codes == level) for level in taken]
    rows = frame.iloc[np.concatenate(places)].reset_index(drop=True)
    sizes = [len(place) for place in places]
    copies = np.repeat(np.arange(n) // m, sizes)
    for column in _nested(frame, factor, codes):
        copy = [f".{number}" if number else "" for number in copies]
        rows[column] = [f"{label}{end}" for label, end in zip(rows[column], copy, strict=True)]
    rows[factor] = np.repeat(np.arange(1, n + 1), sizes)
    return rows


def _by_profile(frame: pd.DataFrame, factor: str, codes: np.ndarray) -> np.ndarray:
    """Return the groups, ordered by the values that are constant within each of them."""
    by_group = frame.drop(columns=factor).groupby(codes)
    constant = [name for name in frame.columns.drop(factor) if by_group[name].nunique().max() <= 1]
    if not constant:
        return np.arange(int(codes.max()) + 1)
    ranks = [pd.factorize(by_group[name].first(), sort=True)[0] for name in reversed(constant)]
    varied = [rank for rank in ranks if len(np.unique(rank)) < len(rank)]
    return np.lexsort(varied) if varied else np.arange(int(codes.max()) + 1)


def _nested(frame: pd.DataFrame, factor: str, codes: np.ndarray) -> list[str]:
    """Return the columns of labels each of which is in one group, and not the same in all of it."""
    found = []
    for name in frame.columns.drop(factor):
        if pd.api.types.is_numeric_dtype(frame[name]):
            continue
        if pd.Series(codes).groupby(frame[name].to_numpy()).nunique().max() == 1 and (
            frame[name].nunique() > frame[factor].nunique()
        ):
            found.append(str(name))
    return found


def with_rows(frame: pd.DataFrame, factor: str, n: int) -> pd.DataFrame:
    """Return n rows of each group: its first ones, or all of them again and again.

    Examples
    --------
    >>> with_rows(pd.DataFrame({"g": list("aab"), "x": [1, 2, 3]}), "g", 3)["x"].tolist()
    [1, 2, 1, 3, 3, 3]
    """
    codes = pd.factorize(frame[factor])[0]
    places = [np.flatnonzero(codes == level) for level in range(int(codes.max()) + 1)]
    taken = [place[np.arange(n) % len(place)] for place in places]
    return frame.iloc[np.concatenate(taken)].reset_index(drop=True)


type Sizes = list[tuple[dict[str, int], pd.DataFrame]]


def sized(
    design: Design,
    frame: pd.DataFrame,
    groups: Mapping[str, Iterable[int]] | Iterable[int] | int | None,
    rows: Iterable[int] | int | None,
) -> Sizes:
    """Return the rows of studies of several sizes, with the sizes by name.

    Parameters
    ----------
    design : Design
        Of the frame.
    frame : DataFrame
    groups : mapping of str to int or sequence of int, or one of these, optional
        Numbers of groups, by grouping factor where there are several.
    rows : int or sequence of int, optional
        Numbers of rows of each group of the factor that comes first in `groups`.
    """
    factors = list(dict.fromkeys(term.factor for term in design.terms))
    by_factor: dict[str, Iterable[int] | int] = {}
    if isinstance(groups, Mapping):
        by_factor = dict(groups)
    elif groups is not None:
        by_factor = {_only(factors, frame, "groups"): groups}
    points: Sizes = [({}, frame)]
    if rows is not None:
        within = next(iter(by_factor)) if by_factor else _only(factors, frame, "rows")
        _check_factor(within, frame, factors)
        counts = _counts("rows", rows)
        check_size(max(counts) * frame[within].nunique(), frame)
        points = [({"rows": n}, with_rows(frame, within, n)) for n in counts]
    for factor, numbers in by_factor.items():
        _check_factor(factor, frame, factors)
        counts = _counts("groups", numbers)
        most = max(len(part) for _, part in points)
        check_size(max(counts) * most / frame[factor].nunique(), frame)
        points = [
            ({factor: n} | size, extended(part, factor, n)) for n in counts for size, part in points
        ]
    return points


def check_size(rows: float, frame: pd.DataFrame) -> None:
    """Refuse a study that does not fit into memory."""
    what = f"a study of {rows:,.0f} rows"
    check_memory(3.0 * rows * frame.shape[1], what, "Plan one of fewer groups or rows.")


def _counts(name: str, numbers: Iterable[int] | int) -> list[int]:
    counts = list(numbers) if isinstance(numbers, Iterable) else [numbers]
    for count in counts:
        check_counts(**{name: count})
    if not counts:
        raise FitError(f"{name}= is empty: give a size, or several.")
    return counts


def _only(factors: list[str], frame: pd.DataFrame, name: str) -> str:
    single = [factor for factor in factors if factor in frame]
    if len(single) == 1:
        return single[0]
    there = listed(factors) or "none"
    raise FitError(
        f"{name}= needs the name of a grouping factor, as in {name}={{'{(single or ['g'])[0]}': "
        f"[10, 20]}}: the model has {there}."
        if name == "groups"
        else f"rows= are those of a group: name its factor by groups=; the model has {there}."
    )


def _check_factor(factor: str, frame: pd.DataFrame, factors: list[str]) -> None:
    if factor not in frame:
        raise FitError(
            f"groups=: `{factor}` is not a column of the design; the grouping factors of the model "
            f"are {listed(factors) or 'none'}."
        )
