"""Pictures of groups side by side: their data, and the lines through these."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ranef._typing import Array, Axes, Panels
from ranef.arguments import check_choice, check_counts, check_known
from ranef.design.design import Design
from ranef.errors import FitError, probability
from ranef.families.family import Family
from ranef.fits import tables
from ranef.fits.fitted import Fitted
from ranef.fits.no_pooling import axis_labels, group_lines, own_columns, own_estimates
from ranef.fits.predictions.asked_rows import asked_rows
from ranef.plots.by_group import dot_plots, pairs, trellis

MOST_PANELS = 36  # of a page


@dataclass(frozen=True, eq=False)
class Along:
    """The groups of a lattice: which, in which order, along what, and what is to be said of that.

    Attributes
    ----------
    x : str or None
        A column of the data.
    chosen : list of int
        Positions among the levels, from the first panel to the last.
    said : str
    """

    x: str | None
    chosen: list[int]
    said: str


def ordered(
    one: own_estimates.OwnEstimates,
    x: str | None,
    order: str | None,
    groups: Sequence[object] | None,
    page: int | None,
) -> Along:
    """Return the groups that are drawn: of many those at both ends, or a page of all.

    Parameters
    ----------
    one : OwnEstimates
    x : str or None
        Along what.
    order : str, optional
        A coefficient, by whose own estimates groups are ordered, the first by default; or "level".
    groups : sequence, optional
        The levels that are wanted.
    page : int, optional
        Of all groups, from 1.
    """
    coefs, names = list(one.factor.coefs), [str(level) for level in one.factor.levels]
    by = check_choice(
        "order", coefs[0] if order is None else order, [*coefs, "level"], "is unknown"
    )
    rank = list(range(len(names)))
    said = f"{one.factor.name}, {len(names)} levels"
    if by != "level":
        values = one.own[:, coefs.index(by)]
        rank = np.argsort(np.where(np.isnan(values), np.inf, values), kind="stable").tolist()
        said += f", ordered by {by}"
    if groups is not None:
        wanted = places_of(one.factor, groups)
        return Along(x, [i for i in rank if i in wanted], said)
    pages = -(-len(rank) // MOST_PANELS)
    if page is not None:
        check_counts(page=page)
        if page > pages:
            raise FitError(f"page={page} is not there: {len(rank)} groups have {pages} pages.")
        part = rank[(page - 1) * MOST_PANELS : page * MOST_PANELS]
        return Along(x, part, f"{said}; page {page} of {pages}")
    if pages > 1:
        half = MOST_PANELS // 2
        said += f": the first {half} and the last {half}; page=1 to {pages} has all"
        return Along(x, [*rank[:half], *rank[-half:]], said)
    return Along(x, rank, said)


def places_of(factor: own_columns.GroupingColumns, groups: Sequence[object]) -> set[int]:
    """Return the positions of groups among the levels of their factor.

    Raises
    ------
    FitError
        If the factor has no such level, or none is named.
    """
    names = [str(level) for level in factor.levels]
    check_known(map(str, groups), names, lambda name: f"`{factor.name}` has no level {name!r}.")
    if not len(groups):
        raise FitError(f"`groups` names no level of `{factor.name}`, so there is nothing to draw.")
    return {names.index(str(group)) for group in groups}


def own_lines(
    design: Design, family: Family, one: own_estimates.OwnEstimates, beta: Array, along: Along
) -> tuple[pd.DataFrame, pd.DataFrame | None, Any]:
    """Return the lines of groups by their own estimates, the rows that they are of, and which.

    Without a way to make rows anew, as where the offset is an array, they are some of those of the
    data, for which None is returned; otherwise all of those that are returned.
    """
    labels = group_lines.enclosing_terms(design, one.factor)
    if design.recipe.offset == "":
        values = np.zeros(design.n_obs)
        if along.x is not None:
            values = design.rows.data.columns[along.x].array
        places = np.flatnonzero(np.isin(one.factor.codes, along.chosen))
        places = places[values[places].argsort(kind="stable")]
        rows = asked_rows(design, None, "known", labels).part(places)
        levels = one.factor.levels.to_numpy()[one.factor.codes[places]]
        table = pd.DataFrame({"level": levels, "x": values[places]})
        return (
            table.assign(own=group_lines.own_means(design, one, family, beta, rows)),
            None,
            places,
        )
    frame = group_lines.typical_rows(design, one.factor, along.x, along.chosen)
    rows = group_lines.quietly_asked(lambda: asked_rows(design, frame, "known", labels))
    per = len(frame) // len(along.chosen)
    levels = np.repeat(one.factor.levels.to_numpy()[along.chosen], per)
    x = np.zeros(len(frame)) if along.x is None else frame[along.x].array
    own = rows.spread(group_lines.own_means(design, one, family, beta, rows))
    return pd.DataFrame({"level": levels, "x": x, "own": own}), frame, slice(None)


def response_label(design: Design, family: Family) -> str:
    """Return what stands at the axis of the response."""
    label = design.success or design.response
    if family.has_trials or design.success:
        counts = re.fullmatch(r"cbind\((.+?),.*\)", label)
        return f"share of {counts[1] if counts else label}"
    unit = axis_labels.AxisLabels(design, family).units.get(design.response)
    return f"{label}, {unit}" if unit else label


def along_label(design: Design, family: Family, x: str) -> str:
    """Return what stands at the axis of a predictor."""
    unit = axis_labels.AxisLabels(design, family).units.get(x)
    return f"{x}, {unit}" if unit and unit.lower() != x.lower() else x


class GroupPictures(Fitted):
    """The pictures that a fit has of its groups: lines through their data, pairs of effects."""

    def groups_table(
        self,
        term: str | None = None,
        x: str | None = None,
        *,
        prob: float | None = None,
        order: str | None = None,
        groups: Sequence[object] | None = None,
        page: int | None = None,
        hold: bool = False,
    ) -> pd.DataFrame:
        """Return the lines of each group along a predictor: its own, the model's, the population's.

        Parameters
        ----------
        term : str, optional
            Label of a term, which stands for its grouping factor; the first by default.
        x : str, optional
            The column of the data along which lines are drawn; by default the first measured
            predictor that varies within groups, those with random effects before others.
        prob : float, optional
            Probability of the intervals of the model's line: 0.95 of a posterior, none of a point
            fit.
        order : str, optional
            The coefficient by whose own estimates groups are ordered, by default the first; or
            "level".
        groups : sequence, optional
            The levels that are wanted.
        page : int, optional
            Of more than 36 groups, which 36 of all; by default the 18 at each end.
        hold : bool
            As of `shrinkage_table`.

        Returns
        -------
        DataFrame
            Columns `level, x, own, model, population` and with intervals `lower, upper`, on the
            scale of the response; `own` is nan where the rows of a group give no such line. Other
            predictors are as they are typical of the group: means, and most frequent levels.
            Other grouping factors take no part, unless this one is nested in them.
            `.attrs["said"]` says which groups these are.

        Examples
        --------
        >>> import ranef as rf
        >>> fit = rf.fit("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))
        >>> table = fit.groups_table(groups=["308"])
        >>> table.iloc[[0, -1]].round(1)
           level    x    own  model  population
        0    308  0.0  244.2  253.7       251.4
        40   308  9.0  440.1  430.7       345.6
        """
        one = self._groups_alone(term, hold=hold)
        along = ordered(
            one, group_lines.predictor_of(self.design, one.factor, x), order, groups, page
        )
        return self._lines(one, along, prob)

    def _lines(
        self, one: own_estimates.OwnEstimates, along: Along, prob: float | None
    ) -> pd.DataFrame:
        fit: Any = self
        beta = fit.fixef().to_numpy()
        table, frame, places = own_lines(self.design, self.family, one, beta, along)
        labels = group_lines.enclosing_terms(self.design, one.factor)
        prob = 0.95 if prob is None and hasattr(self, "posterior") else prob
        asked = {} if prob is None else {"prob": probability(prob)}
        found = group_lines.quietly_asked(lambda: fit.predict(frame, terms=labels, **asked))
        typical = group_lines.quietly_asked(lambda: fit.predict(frame, groups="population"))
        table["model"] = np.asarray(found if prob is None else found["mean"])[places]
        table["population"] = typical[places]
        if prob is not None:
            table.attrs["interval"] = f"its {100 * prob:g} % interval"
            table[["lower", "upper"]] = found[["lower", "upper"]].to_numpy()[places]
        table.attrs["said"] = along.said
        return table

    def plot_groups(
        self,
        term: str | None = None,
        x: str | None = None,
        *,
        prob: float | None = None,
        order: str | None = None,
        groups: Sequence[object] | None = None,
        page: int | None = None,
        hold: bool = False,
        **style: Any,
    ) -> Panels | Axes:
        """Draw each group's data with its own line, the model's and the population's.

        Parameters
        ----------
        term, x, prob, order, groups, page, hold
            As of `groups_table`.
        **style
            `ax=`, `figsize=` and whatever else `ranef.plots.by_group.trellis.trellis` takes; of
            a model without predictors within groups, `ranef.plots.by_group.dot_plots.dots`.

        Returns
        -------
        ndarray of Axes, or Axes
            A panel a group: the grey line is the group's by its rows alone, the blue one the
            model's, and the dashed one that of a typical group. The blue line lies between the
            other two, the nearer to the dashed one the less the group's own data say. Without a
            predictor within groups one dot plot has all groups.

        Notes
        -----
        The band of a posterior is the interval of the group's mean; single observations lie
        around it. With another link than the identity lines are curves through it, and the
        points are shares where the response is success or failure.

        Examples
        --------
        >>> import ranef as rf
        >>> fit = rf.fit("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))
        >>> len(fit.plot_groups())
        18
        """
        one = self._groups_alone(term, hold=hold)
        x = group_lines.predictor_of(self.design, one.factor, x)
        points = group_lines.points_table(self.design, one.factor, self.family, x)
        label = response_label(self.design, self.family)
        if x is None:
            everyone = one.factor.levels if groups is None else groups
            along = ordered(one, None, None, list(everyone), None)
            lines = self._lines(one, along, None)
            points = points[points["level"].isin(lines["level"])]
            title = one.factor.name
            return dot_plots.dots(points, estimates=lines, title=title, xlabel=label, **style)
        along = ordered(one, x, order, groups, page)
        lines = self._lines(one, along, prob)
        return trellis.trellis(
            points,
            lines,
            levels=list(dict.fromkeys(lines["level"])),
            title=along.said,
            xlabel=along_label(self.design, self.family, x),
            ylabel=label,
            **style,
        )

    def plot_pairs(self, term: str | None = None, *, total: bool = False, **style: Any) -> Panels:
        """Draw the random effects of a term against each other, with the model's ellipses.

        Parameters
        ----------
        term : str, optional
            Label of a term, which stands for all terms of its grouping factor; the first by
            default.
        total : bool
            Whether the groups' own coefficients are drawn, fixed effects plus random ones.
        **style
            `ax=`, `figsize=` and whatever else `ranef.plots.by_group.pairs.pairs` takes.

        Returns
        -------
        ndarray of Axes
            One panel a pair. The points are shrunken estimates, and so lie closer together than
            the groups of the model, of which the ellipses hold 50 % and 95 %. The groups' own
            coefficients have ellipses where all groups have the same population.

        Examples
        --------
        >>> import ranef as rf
        >>> fit = rf.fit("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))
        >>> (panel,) = fit.plot_pairs()
        >>> panel.get_xlabel(), panel.get_ylabel()
        ('deviation of Intercept, ms', 'deviation of Days, ms per day')
        """
        one = self._groups_alone(term, hold=True)
        factor, names = one.factor, pd.Index(one.factor.coefs)
        estimate, population = one.model - one.population * (not total), one.population
        is_one = (np.ptp(population, axis=0) <= 1e-9 * np.abs(population).max(axis=0)).all()
        table = tables.effect_labels(factor.name, factor.levels, factor.coefs)
        return pairs.pairs(
            table.assign(estimate=estimate.ravel()),
            covariance=self._covariance(factor) if is_one or not total else None,
            centre=pd.Series(population.mean(axis=0), names) if total else None,
            xlabels=self._axis_labels().of_all(names, "total" if total else "deviation"),
            **style,
        )

    def _groups_alone(self, term: str | None, *, hold: bool) -> own_estimates.OwnEstimates:
        factor = own_columns.factor_of(self.design, self._term(term).factor)
        return own_estimates.own_estimates(self.design, factor, self._as_estimated(), hold=hold)

    def _as_estimated(self) -> own_estimates.Estimates:
        return own_estimates.Estimates(
            beta=np.asarray(self.fixef(), dtype=np.float64),
            b=self._b(),
            covs=self._covs(),
            family=self.family,
            psi=np.array(list(self.parameters.values())),
            sigma=self.sigma if self.family.is_linear else 1.0,
        )

    def _covs(self) -> dict[str, Array]:
        return {label: cov.to_numpy() for label, cov in self.varcorr().cov.items()}

    def _covariance(self, factor: own_columns.GroupingColumns) -> pd.DataFrame:
        """Return the covariance of the random effects of all terms of a factor."""
        return pd.DataFrame(factor.covariance(self._covs()), factor.coefs, factor.coefs)

    def _axis_labels(self) -> axis_labels.AxisLabels:
        return axis_labels.AxisLabels(self.design, self.family)
