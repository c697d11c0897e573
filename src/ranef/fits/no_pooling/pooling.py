"""What every fit answers of its groups: by themselves, in the light of all, and in pictures."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ranef._typing import Axes, Panels
from ranef.errors import probability
from ranef.fits.no_pooling import own_estimates
from ranef.fits.no_pooling.group_pictures import GroupPictures
from ranef.plots import random_effects


class Pooling(GroupPictures):
    """The answers of a fit about its groups: own estimates, shrinkage, caterpillars."""

    def shrinkage_table(self, term: str | None = None, *, hold: bool = False) -> pd.DataFrame:
        """Return, for each group, its own estimate beside the model's.

        Parameters
        ----------
        term : str, optional
            Label of a term, which stands for all terms of its grouping factor; the first by
            default.
        hold : bool
            Whether fixed effects that have no random effects in the factor's terms, but whose
            columns vary within groups, are held at the fit's estimates. By default each group has
            its own of these too.

        Returns
        -------
        DataFrame
            One row a level and coefficient. `own` is the estimate from the group's rows alone: no
            pooling at all. `model` is what the model makes of it, partial pooling; `population`
            is its fixed part, complete pooling; `n` the rows of the group. `se` is the standard
            error of `own`, with one residual sd of all groups. `reliability` is the share of the
            variance of own estimates that is of the groups, and not of the errors of their rows:
            1 where rows are many, 0 where groups do not differ. `shrinkage` is how much of the
            way from `own` to `population` the model's estimate went. All on the link scale.
            `held` says whether other fixed effects are held at the fit's.

        Notes
        -----
        `own` is least squares, or maximum likelihood in a generalised model, in each group: all
        columns of the factor's terms and all fixed columns that vary within groups, as R's
        `lmList(y ~ x | g)`. No other random effect takes part: the own estimate of a batch is the
        mean of its rows, whatever its casks are. `model` is of the same coefficient. Predictors
        of groups, which vary within none, are a part of it and of `population`, which then
        differs between groups, and so are the effects of a factor that this one is nested in.

        A coefficient that the rows of a group do not determine is nan, and the others of the group
        are not; so is one for which the likelihood rises without end, as with successes alone.
        Other fixed effects that they leave open are held at the fit's estimates: that of `sex` in
        a school for girls.

        In a model of intercepts alone `reliability` is n s_a^2 / (n s_a^2 + s^2), and `shrinkage`
        is 1 less that. With several coefficients a group the estimate of one pulls that of another
        along, and `shrinkage` may be negative, or more than 1.

        Examples
        --------
        >>> import ranef as rf
        >>> fit = rf.fit("strength ~ 1 + (1 | batch/cask)", rf.load_dataset("Pastes"))
        >>> table = fit.shrinkage_table("batch").set_index("level").rename_axis(None)
        >>> table.loc[["A"], ["own", "model", "population", "reliability", "shrinkage"]].round(2)
             own  model  population  reliability  shrinkage
        A  62.27  60.85       60.05         0.36       0.64
        """
        return own_estimates.shrinkage_table(
            self.design, self._groups_alone(term, hold=hold), self._as_estimated()
        )

    def own_table(
        self,
        term: str | None = None,
        prob: float = 0.95,
        *,
        pooled: bool = True,
        hold: bool = False,
    ) -> pd.DataFrame:
        """Return each group's own estimates, from its rows alone, with intervals: R's `lmList`.

        Parameters
        ----------
        term, hold
            As of `shrinkage_table`.
        prob : float
            Probability of the intervals.
        pooled : bool
            Whether groups have one residual sd, that of all their residuals, or each its own.

        Returns
        -------
        DataFrame
            Columns `term, level, coef, estimate, sd, lower, upper, df, n`: one row for each group
            and coefficient, those without random effects included. `sd` is the standard error.
            Intervals are those of t with `df` degrees of freedom; of a generalised model normal,
            from the curvature of the group's likelihood. `.attrs["interval"]` says so.

        Examples
        --------
        >>> import ranef as rf
        >>> data = rf.load_dataset("sleepstudy")
        >>> fit = rf.fit("Reaction ~ Days + (Days | Subject)", data)
        >>> fit.own_table().iloc[:2, 1:-1].round(2)
          level       coef  estimate     sd   lower   upper     df
        0   308  Intercept    244.19  15.04  214.46  273.92  144.0
        1   308       Days     21.76   2.82   16.20   27.33  144.0
        """
        one = self._groups_alone(term, hold=hold)
        return own_estimates.own_table(one, probability(prob), pooled=pooled, family=self.family)

    def plot_caterpillar(
        self,
        term: str | None = None,
        *,
        prob: float = 0.95,
        kind: str = "interval",
        total: bool = False,
        uncertainty: str | None = None,
        **style: Any,
    ) -> Panels:
        """Draw the random effects with their intervals, ordered: see `plots.random_effects`.

        Parameters
        ----------
        term : str, optional
            Label of the term; all by default.
        prob : float
            Probability of the intervals.
        kind : {"interval", "qq"}
            Levels in order, or against normal quantiles.
        total : bool
            Whether each group's own coefficients are drawn, fixed effects plus random ones, as of
            `coef_table`, in place of its deviations from the fixed effects.
        uncertainty : str, optional
            Of which parameters the intervals contain the uncertainty, as of `ranef_table`.
        **style
            `ax=`, `figsize=`, `order=`, `sharex=` and whatever else
            `ranef.plots.random_effects.caterpillar` takes.
        """
        fit: Any = self
        self._term(term)
        if total:
            table, fixef = fit.coef_table(prob, uncertainty=uncertainty), self.fixef()
            table["population"] = fixef.reindex(table["coef"]).fillna(0.0).to_numpy()
        else:
            table = fit.ranef_table(prob, uncertainty=uncertainty)
        labels = self._axis_labels()
        return random_effects.caterpillar(
            table,
            term=term,
            kind=kind,
            interval_label=table.attrs["interval"],
            xlabels=labels.of_all(table["coef"].unique(), "total" if total else "deviation"),
            titles=labels.titles(),
            **style,
        )

    def plot_own(
        self,
        term: str | None = None,
        *,
        prob: float = 0.95,
        pooled: bool = True,
        hold: bool = False,
        **style: Any,
    ) -> Panels:
        """Draw each group's own estimates with their intervals, as R's `plot(intervals(lmList))`.

        Parameters
        ----------
        term, prob, pooled, hold
            As of `own_table`.
        **style
            `ax=`, `figsize=`, `order=` and whatever else
            `ranef.plots.random_effects.caterpillar` takes.

        Returns
        -------
        ndarray of Axes
            A panel a coefficient, of the groups that have an own estimate. The line is the fixed
            effect: the intervals of groups that do not differ hold it as often as they say.
        """
        table, fixef = self.own_table(term, prob, pooled=pooled, hold=hold), self.fixef()
        said, known = table.attrs["interval"], table.groupby("level")["estimate"].transform("count")
        if (known == 0).any() and (known > 0).any():
            said = f"{said}; {table['level'][known == 0].nunique()} groups have no own estimate"
            table = table[known > 0]
        table["population"] = fixef.reindex(table["coef"]).fillna(0.0).to_numpy()
        labels = self._axis_labels().of_all(table["coef"].unique(), "own")
        return random_effects.caterpillar(table, interval_label=said, xlabels=labels, **style)

    def plot_shrinkage(
        self, term: str | None = None, *, coefs: Any = None, hold: bool = False, **style: Any
    ) -> Axes:
        """Draw how the model shrinks each group's own estimate: see `plots.random_effects`.

        Parameters
        ----------
        term : str, optional
            Label of a term, which stands for all terms of its grouping factor; the first by
            default.
        coefs : str or sequence of str, optional
            One coefficient (rows) or two (arrows with the covariance ellipse); the first two by
            default.
        hold : bool
            As of `shrinkage_table`.
        **style
            `ax=`, `figsize=` and whatever else `ranef.plots.random_effects.shrinkage` takes.
        """
        one = self._groups_alone(term, hold=hold)
        return random_effects.shrinkage(
            own_estimates.shrinkage_table(self.design, one, self._as_estimated()),
            coefs=coefs,
            covariance=self._covariance(one.factor),
            xlabels=self._axis_labels().of_all(one.factor.coefs, ""),
            **style,
        )
