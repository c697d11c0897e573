"""The pictures of a model's data, before anything is fitted."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ranef._typing import Axes, Panels
from ranef.arguments import check_choice, check_known
from ranef.design.design import Design
from ranef.design.groups import is_nested
from ranef.errors import FitError
from ranef.families.family import Family
from ranef.fits.no_pooling import group_lines, own_columns, own_estimates
from ranef.fits.no_pooling.group_pictures import (
    along_label,
    ordered,
    own_lines,
    places_of,
    response_label,
)
from ranef.plots import canvas
from ranef.plots.by_group import dot_plots, trellis

KINDS = ("dots", "lattice")


class DataPictures(ABC):
    """The pictures that a model has of its data."""

    design: Design
    family: Family

    def plot_data(
        self,
        factor: str | None = None,
        x: str | None = None,
        *,
        kind: str | None = None,
        order: str | None = None,
        groups: Sequence[object] | None = None,
        page: int | None = None,
        **style: Any,
    ) -> Panels | Axes:
        """Draw the data group by group, before anything is fitted.

        Parameters
        ----------
        factor : str, optional
            The grouping factor; that with most levels by default.
        x : str, optional
            The column of the data along which groups are drawn; by default the first measured
            predictor that varies within groups, those with random effects before others.
        kind : {"dots", "lattice"}, optional
            A dot plot, each group a row, ordered by the means; or a panel a group, with the line
            of its own regression. Dots of groups within groups, `(1 | a/b)`, have a panel for each
            level of `a`. By default the second where the formula has a predictor that
            varies within groups.
        order : str, optional
            Of dots "mean" or "level"; of a lattice the coefficient whose own estimates order the
            panels, by default the first, or "level".
        groups : sequence, optional
            The levels that are wanted.
        page : int, optional
            Of a lattice of more than 36 groups, which 36 of all; by default the 18 at each end.
        **style
            `ax=`, `figsize=` and whatever else `ranef.plots.by_group.dot_plots.dots` or
            `ranef.plots.by_group.trellis.trellis` takes.

        Returns
        -------
        Axes, or ndarray of Axes

        Raises
        ------
        FitError
            If the model has no such grouping factor or column, or no grouping factor.

        Notes
        -----
        Points of a response of successes and failures are shares: of each group, or of intervals
        of the predictor. In a dot plot a crossed factor of few levels has colours.

        Examples
        --------
        >>> import ranef as rf
        >>> model = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
        >>> axes = model.plot_data()
        >>> [label.get_text() for label in axes.get_yticklabels()]
        ['F', 'D', 'A', 'B', 'C', 'E']
        """
        columns = own_columns.factor_of(self.design, self._factor(factor))
        along = group_lines.predictor_of(self.design, columns, x)
        usual = "dots" if along is None else "lattice"
        if check_choice("kind", kind or usual, KINDS, "is no kind of plot") == "dots":
            return self._dots(columns, order, groups, style)
        if along is None:
            raise FitError(
                f"no predictor of the model varies within {columns.name}, so there are no lines: "
                'use kind="dots".'
            )
        start = _without_effects(self)
        one = own_estimates.own_estimates(self.design, columns, start)
        chosen = ordered(one, along, order, groups, page)
        lines, *_ = own_lines(self.design, self.family, one, start.beta, chosen)
        return trellis.trellis(
            group_lines.points_table(self.design, columns, self.family, along),
            lines,
            levels=columns.levels.to_numpy()[chosen.chosen].tolist(),
            title=chosen.said,
            xlabel=along_label(self.design, self.family, along),
            ylabel=response_label(self.design, self.family),
            **style,
        )

    def _dots(
        self,
        columns: own_columns.GroupingColumns,
        order: str | None,
        groups: Sequence[object] | None,
        style: dict[str, Any],
    ) -> Panels | Axes:
        check_choice("order", order or "mean", dot_plots.ORDERS, "is not an order of dots")
        points = group_lines.points_table(self.design, columns, self.family, None)
        other = self._crossed(columns)
        if other is not None and len(points) == self.design.n_obs:
            points["by"] = other.grouping.levels.to_numpy()[other.codes]
        if groups is not None:
            points = points[points["level"].isin(columns.levels[[*places_of(columns, groups)]])]
        outer = self._outer(columns)
        draw: Callable[..., Panels | Axes] = dot_plots.dots
        is_one = not (style.get("ax") is None or isinstance(style["ax"], Iterable))
        n_rows = points["level"].nunique() + (0 if outer is None else outer.n_levels)
        if outer is not None and not is_one and n_rows <= canvas.MAX_NAMED_ROWS:
            points, draw = _in_panels(points, columns, outer), dot_plots.nested_dots
        return draw(
            points,
            order=order or "mean",
            title=columns.name,
            by="" if other is None else other.factor,
            xlabel=response_label(self.design, self.family),
            **style,
        )

    def _crossed(self, columns: own_columns.GroupingColumns) -> Any:
        """Return the rows of another factor of few levels that is crossed with this one, if any."""
        for term in self.design.rows.terms:
            is_other = term.factor != columns.name and term.n_levels <= dot_plots.FEW
            if is_other and not is_nested(columns.codes, term.codes):
                return term
        return None

    def _outer(self, columns: own_columns.GroupingColumns) -> Any:
        """Return the rows of the finest factor that this one is nested in, if any."""
        found = [
            term
            for term in self.design.rows.terms
            if 1 < term.n_levels < len(columns.levels) and is_nested(columns.codes, term.codes)
        ]
        return max(found, key=lambda term: term.n_levels, default=None)

    def _factor(self, name: str | None) -> str:
        factors = {term.label: term.factor for term in self.design.terms}
        if not factors:
            raise FitError("the model has no grouping factor, so there are no groups to draw.")
        if name is None:
            return next(iter(factors.values()))
        check_known([name], factors, lambda name: f"there is no grouping factor {name!r}.")
        return factors[name]


def _in_panels(
    points: pd.DataFrame, columns: own_columns.GroupingColumns, outer: Any
) -> pd.DataFrame:
    """Return the points of nested groups with their outer group, whose name theirs is without."""
    _, first = np.unique(columns.codes, return_index=True)
    above = pd.Series(outer.grouping.levels.to_numpy()[outer.codes[first]], index=columns.levels)
    panel = above.loc[points["level"]].to_numpy()
    names = [
        str(level).removesuffix(f":{name}").removeprefix(f"{name}:")
        for level, name in zip(points["level"], panel, strict=True)
    ]
    return points.assign(panel=panel, level=names)


def _without_effects(model: Any) -> own_estimates.Estimates:
    """Return the estimates of a model without its random effects."""
    design, family = model.design, model.family
    if family.is_linear:
        rows = design.rows
        root = np.sqrt(rows.weights)
        response = (rows.y - rows.offset) * root
        beta = np.linalg.lstsq(rows.X * root[:, None], response, rcond=None)[0]
        psi = np.ones(1)
    else:
        start = model.engine.data.generalized
        kept = [design.fixed.index(name) for name in model.engine.data.estimable.fixed]
        beta, psi = np.zeros(len(design.fixed)), start.psi
        beta[kept] = start.to_users @ start.gamma
    return own_estimates.Estimates(
        beta=beta,
        b={term.label: np.zeros((term.n_levels, term.n_coefs)) for term in design.terms},
        covs={term.label: np.zeros((term.n_coefs, term.n_coefs)) for term in design.terms},
        family=family,
        psi=psi,
        sigma=1.0,
    )
