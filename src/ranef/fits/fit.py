"""Fits: one protocol for point estimates and posteriors.

`Fit` holds what every fit answers in the same way; `PointFit` and `PosteriorFit` add where their
numbers come from. Fits are frozen; what needs the data once more they ask of their `Engine`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import compress
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, cast

import numpy as np
import pandas as pd

from ranef._typing import Array, FilePath, Seed
from ranef.arguments import answering, check_counts, check_seed
from ranef.design.design import RandomTerm
from ranef.design.labels import theta_names
from ranef.design.lazy.lazy_table import open_lazy
from ranef.design.new_data.new_rows import NewRows, own_rows
from ranef.errors import Convergence, FitError, listed, probability
from ranef.explorer.explore import Explorable
from ranef.fits import tables
from ranef.fits.anew import Anew
from ranef.fits.checks.checks import Checks
from ranef.fits.engine import records_of
from ranef.fits.no_pooling.pooling import Pooling
from ranef.fits.other_names import missing
from ranef.fits.pictures.pictures import Pictures
from ranef.fits.predictions import coefficient_table, lazy_predictions, prediction_table
from ranef.fits.predictions.asked_rows import asked_rows
from ranef.fits.reports import principal_components
from ranef.fits.reports.icc_and_r2 import Explained
from ranef.fits.reports.studies import Studies
from ranef.fits.reports.tidy_tables import Reports
from ranef.likelihood.predictions import Draws, drawn_rows, linear_predictor
from ranef.numerics.memory import WithoutCaches
from ranef.printing.frames import Table


class Fit(WithoutCaches, Anew, Explained, Pictures, Checks, Studies, Pooling, Explorable, Reports):
    """What every fit answers, whatever the method.

    Attributes
    ----------
    design : Design
        Data and matrices of the fit.
    family : Family
    method : str
        How the fit was made: "reml", "ml", "map", "laplace", "quadrature", "mcmc".
    engine : Engine, optional
        What answers for the model that the fit comes from.

    Notes
    -----
    What lme4 has by `getME(fit, name)` are properties and methods: `theta`, `sigma`, `Z()`,
    `Lambda()`, `cholesky()`, `lambda_blocks()` of point fits; `design.rows.X` and `.y`, and
    `design.terms`. Its `drop1`, and lmerTest's `ranova`, are `ranef.anova` on fits without the
    term, as `model.structures()` has them; tests of the terms of one fit are
    `ranef.joint_tests`.
    """

    if not TYPE_CHECKING:  # a type checker knows what there is

        def __getattr__(self, name: str) -> NoReturn:
            raise missing(self, name, kinds_of_fits())

    def __init_subclass__(cls) -> None:
        answering(cls)

    # ----------------------------------------------------- what the two kinds of fit differ in

    made_by: ClassVar[str]  # the methods of `Model.fit` that give such a fit

    @abstractmethod
    def ranef_table(self, prob: float = 0.95, *, uncertainty: str | None = None) -> pd.DataFrame:
        """Return the random effects as a tidy table.

        Columns `term, level, coef, estimate, sd, lower, upper`; `.attrs["interval"]` says what
        the intervals are.
        """

    def save(self, path: FilePath) -> None:
        """Write the fit into one file, which `ranef.load` reads.

        Parameters
        ----------
        path : path
            A file that is there already is replaced.

        Raises
        ------
        FitError
            If the fit has no model or no rows, or priors or data that a file cannot hold.
        FileNotFoundError
            If there is no folder for the file.

        Notes
        -----
        The file has the formula, the columns of the data that it uses (complete rows only), the
        priors, and the numbers of the fit: estimates, draws, or the nodes of a quadrature. What
        is computed of these when it is asked for is left out. Functions and families of the
        user's own are named only: `ranef.load` is to be given them.

        It is a zip in Zarr's format: without this package,
        `xarray.open_datatree(zarr.storage.ZipStore(path), engine="zarr")` has the groups of a
        posterior of draws. Nothing in it is pickled, and nothing is evaluated when it is read.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> import ranef as rf
        >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "dyestuff.zip")
        ...     fit.save(path)
        ...     again = rf.load(path)
        >>> again.loglik == fit.loglik
        True
        """
        self.asked.save(path, records_of(self))

    @property
    @abstractmethod
    def convergence(self) -> Convergence:
        """How the fit ended; the value of this enumeration is a message."""

    @property
    @abstractmethod
    def is_singular(self) -> bool:
        """Whether a covariance is on the boundary: a zero variance or a perfect correlation."""

    # ------------------------------------------------------------------- what they share

    @property
    def theta_names(self) -> list[str]:
        """Names of the elements of theta, as in lme4: `Subject.Days.Intercept`."""
        return theta_names(self.design)

    def se(self) -> pd.Series[float]:
        """Return the standard errors of the fixed effects (posterior: standard deviations)."""
        vcov = self.vcov()
        return pd.Series(np.sqrt(np.diag(vcov)), index=vcov.index, name="se")

    def ranef(self) -> dict[str, pd.DataFrame]:
        """Return the random effects: by term label, a DataFrame of levels x coefficients."""
        b = self._b()
        return {t.label: _by_level(t, b[t.label], t.coefs) for t in self.design.terms}

    def coef(self) -> dict[str, pd.DataFrame]:
        """Return the coefficients of each group: fixed effects plus its random effects.

        By term label, a DataFrame of levels x coefficients. As in lme4, all fixed effects have
        a column; those that do not vary in the term are the same in all rows. Fixed and random
        columns are matched by what they are: `b:a` is `a:b`, and where the effects of `(0 + f | g)`
        are those of levels they are added in the coding of the fixed effects. Effects of columns
        that no fixed columns make up have columns of their own, around a mean of zero.
        """
        fixef, b = self.fixef(), self._b()
        coefficients = {}
        for term in self.design.terms:
            found, effects = self.design.term_among_fixed(term.label), b[term.label]
            alone = ~found.exact
            both = effects[:, found.exact] @ found.coefs[:, found.exact].T
            values = np.hstack([fixef.to_numpy() + both, effects[:, alone]])
            names = (*fixef.index, *compress(term.coefs, alone))
            coefficients[term.label] = _by_level(term, values, names)
        return coefficients

    @property
    def n_obs(self) -> int:
        """The number of rows used."""
        return self.design.n_obs

    @property
    def n_groups(self) -> dict[str, int]:
        """The number of levels of each grouping factor."""
        return {t.factor: t.n_levels for t in self.design.terms}

    @property
    def converged(self) -> bool:
        """Whether the numbers can be relied on, a singular fit included."""
        return self.convergence.ok

    def fitted(self) -> Array:
        """Return the fitted means, random effects included, shape (n,), in the data's order.

        For a binomial family these are probabilities. Of lazy data they are a column `mean` of a
        lazy frame with the complete rows of the data.
        """
        lazy = None if self.engine is None else open_lazy(self.engine.lazy_data)
        if lazy is not None:
            return cast("Array", self.predict(lazy))
        return self._expected(own_rows(self.design), prediction_table.Question())

    def re_pca(self) -> principal_components.PrincipalComponents:
        """Return the principal components of each term's covariance, as lme4's `rePCA`.

        Returns
        -------
        PrincipalComponents
            Prints itself; `.to_frame()` has the sd and share of each component: those near zero
            are not supported by the data.
        """
        return principal_components.pca_table(self.design, self.varcorr())

    def predict(
        self,
        new_data: object = None,
        groups: str = "known",
        kind: str = "response",
        *,
        terms: str | Sequence[str] | None = None,
        prob: float | None = None,
        interval: str | None = None,
        draws: bool = False,
        uncertainty: str | None = None,
        n: int | None = None,
        seed: Seed = None,
    ) -> Array | pd.DataFrame:
        """Return predicted means, with intervals or as draws if wanted.

        Parameters
        ----------
        new_data : DataFrame, optional
            The rows to predict; the rows of the fit by default.
        groups : {"known", "population", "new", "average"}
            "known": each group with its own random effects; every level must have been in the
            data. "population": a typical group, whose random effects are zero. "new": a level that
            was not in the data is a new group, whose effects are drawn from their distribution;
            others are known. Without a column of the grouping factor, all rows are of one new
            group. "average": the mean over all groups, whatever the level of a row.
        kind : {"response", "link", "observation"}
            The mean of the response (a probability, for a binomial family); the linear predictor;
            or single observations, whose mean is the first.
        terms : str or sequence of str, optional
            Labels of the random-effects terms that take part, as lme4's `re.form`; all by default.
        prob : float, optional
            Probability of intervals.
        interval : {"confidence", "prediction"}, optional
            Of the mean, or of the linear predictor; or of a single observation, which has the prior
            weight of its row, one in new data (of a binomial model the proportion of one trial).
        draws : bool
            Whether draws are returned.
        uncertainty : {"fixed", "none", "all"}, optional
            Of a point fit, as of `ranef_table`.
        n : int, optional
            The number of draws: by default 1000 of a point fit, all of a posterior; with
            `uncertainty="all"` that of bootstrap replicates, 200.
        seed : int, numpy Generator or SeedSequence, optional
            The same seed gives the same draws.

        Returns
        -------
        ndarray, shape (rows of new_data,), or DataFrame
            Of lazy rows (a DuckDB relation, a Polars LazyFrame, an Ibis table, a Dask or PySpark
            frame) these rows, as lazy as they were, with a column `mean` (or `link`). With `prob` a
            DataFrame on the index of the data with these columns, `sd`, `lower` and `upper`;
            `.attrs` says what is `predicted` and what the `interval` is. With `draws=True` a
            DataFrame with one column a draw, see `draws_of`.

        Raises
        ------
        DataError
            If a level is new and `groups="known"`.

        Warns
        -----
        DataWarning
            Of rows that are predicted as nan: those with missing values, and those whose mean the
            data do not determine, such as a combination of levels that was never observed. No
            choice of a coding, and no prior, makes up a number for these.

        Notes
        -----
        With another link than the identity the mean of a typical group is not the average over
        groups: half of the groups are above it, but the inverse link of an average is not the
        average of the inverse link. The mean of a "new" group is that average, its interval holds
        the group's own mean; that of "average" holds the average alone.

        Intervals of a posterior are highest density intervals. A point fit has normal intervals
        on the scale of the link, with the joint error of fixed and random effects by Henderson's
        mixed-model equations and errors on the scale of the response by the delta method; the
        variances are as if known, which with few groups makes intervals too short. Of 2,000
        simulated data sets, intercepts and slopes varying, 95 % intervals held (the first number
        with 18 groups of 10 rows, the second with 6 groups of 6)

        ======================  ==============  =========================
        the truth               REML            posterior, default priors
        ======================  ==============  =========================
        mean of a known group   94.6 %, 91.5 %  95.1 %, 95.0 %
        new row of one          94.6 %, 93.0 %  95.3 %, 95.2 %
        mean of a new group     93.6 %, 89.2 %  96.3 %, 97.1 %
        new row of one          94.7 %, 91.6 %  95.5 %, 97.0 %
        a typical group         94.1 %, 90.3 %  96.6 %, 96.8 %
        ======================  ==============  =========================

        Intervals of single observations that are not normal are quantiles of draws.

        Examples
        --------
        >>> import ranef as rf
        >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
        >>> fit.predict({"Batch": ["A", "G"]}, groups="new", prob=0.95).round(1)
             mean    sd   lower   upper
        0  1509.9  20.0  1470.6  1549.2
        1  1527.5  46.3  1436.8  1618.2
        """
        asked = prediction_table.question(groups, kind, prob, interval)
        seed = check_seed(seed)
        check_counts(n=1 if n is None else n)
        if (lazy := open_lazy(new_data)) is not None:
            found = self._lazy_prediction(lazy, asked, self._labels(terms), draws=draws)
            return cast("Array", found)
        rows = asked_rows(self.design, new_data, groups, self._labels(terms))
        rng = np.random.default_rng(seed)
        if draws:
            drawn = rows.spread(self._draws_of(rows, asked, n, rng).T)
            return pd.DataFrame(drawn, rows.asked).rename_axis(columns="draw")
        expected = self._expected(rows, asked)
        if prob is None:
            return rows.spread(expected)
        intervals = self._intervals(asked, uncertainty, n, seed)
        return prediction_table.prediction_table(
            rows, expected, asked, intervals, self.design.response
        )

    def draws_of(
        self,
        new_data: object = None,
        groups: str = "known",
        kind: str = "response",
        *,
        terms: str | Sequence[str] | None = None,
        n: int | None = None,
        seed: Seed = None,
    ) -> pd.DataFrame:
        """Return draws of what `predict` predicts: `predict(draws=True)`.

        Parameters
        ----------
        new_data, groups, kind, terms, n, seed
            As of `predict`.

        Returns
        -------
        DataFrame
            On the index of the data, one column a draw. Rows of one draw go together, and rows of
            the same new group have the same effects. A point fit is drawn around its estimates,
            variances as if known.

        Examples
        --------
        >>> import ranef as rf
        >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
        >>> fit.draws_of({"Batch": ["A", "G"]}, groups="new", n=3, seed=1).shape
        (2, 3)
        """
        drawn = self.predict(new_data, groups, kind, terms=terms, draws=True, n=n, seed=seed)
        assert isinstance(drawn, pd.DataFrame)
        return drawn

    def coef_table(
        self,
        prob: float = 0.95,
        *,
        uncertainty: str | None = None,
        draws: bool = False,
        n: int | None = None,
        seed: Seed = None,
    ) -> pd.DataFrame:
        """Return the coefficients of each group, fixed effects plus its random ones.

        Parameters
        ----------
        prob : float
            Probability of the intervals.
        uncertainty, n, seed
            As of `predict`.
        draws : bool
            Whether draws are returned, one column a draw, by term, level and coefficient.

        Returns
        -------
        DataFrame
            Columns `term, level, coef, estimate, sd, lower, upper`, as `ranef_table`; one row for
            each coefficient that varies between the levels of a term. The estimates are those of
            `coef()`; `.attrs["interval"]` says what the intervals are.

        Notes
        -----
        The error of a sum is not the sum of the errors: that of the fixed effects and that of
        a group's deviation from them are mostly negatively correlated. In the simulations of
        `predict` 95 % intervals by REML held 91 % (18 groups) and 83 % (6 groups) of coefficients,
        those of posteriors 94 % of either.

        Examples
        --------
        >>> import ranef as rf
        >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
        >>> fit.coef_table().iloc[:2, 1:].round(1)
          level       coef  estimate    sd   lower   upper
        0     A  Intercept    1509.9  20.0  1470.6  1549.2
        1     B  Intercept    1527.9  20.0  1488.6  1567.2
        """
        seed = check_seed(seed)
        asked, terms = (
            prediction_table.Question(kind="link", prob=probability(prob)),
            self.design.terms,
        )
        of_terms = [coefficient_table.coefficient_rows(self.design, term.label) for term in terms]
        if draws:
            rng = np.random.default_rng(seed)
            drawn = [self._draws_of(rows, asked, n, rng) for rows, _ in of_terms]
            return coefficient_table.drawn_coefficients(
                terms, [names for _, names in of_terms], drawn
            )
        intervals = self._intervals(asked, uncertainty, n, seed)
        values = [(self._expected(rows, asked), *intervals.of(rows)) for rows, _ in of_terms]
        return tables.tidy_effects(
            terms, values, intervals.words(), [names for _, names in of_terms]
        )

    def _labels(self, terms: str | Sequence[str] | None) -> list[str] | None:
        """Return the labels of the terms that take part; None for all."""
        if terms is None:
            return None
        return [self._term(label).label for label in ([terms] if isinstance(terms, str) else terms)]

    def _lazy_prediction(
        self, data: Any, asked: prediction_table.Question, terms: list[str] | None, *, draws: bool
    ) -> Any:
        """Return lazy rows with a column of predictions."""
        effects = {k: b for k, b in self._b().items() if terms is None or k in terms}
        return lazy_predictions.lazy_prediction(
            data,
            self.design,
            self.family,
            asked,
            (np.asarray(self.fixef()), effects),
            is_point=self.method in ("reml", "ml", "map"),
            draws=draws,
        )

    def _expected(self, rows: NewRows, asked: prediction_table.Question) -> Array:
        """Return the predictions of rows, shape (n,)."""
        if asked.kind == "link" or self.family.mean_is_eta:
            return linear_predictor(rows, rows.terms, np.asarray(self.fixef()), self._b())
        return self._mean(rows)

    @abstractmethod
    def _mean(self, rows: NewRows) -> Array:
        """Return the means of rows, over new groups where these are of some, shape (n,)."""

    def _draws_of(
        self,
        rows: NewRows,
        asked: prediction_table.Question,
        n: int | None,
        rng: np.random.Generator,
    ) -> Array:
        """Return draws of what is asked of rows, shape (draws, rows)."""
        draws = self._draws_for(rows, n, rng)
        kind, average = asked.drawn, asked.is_average
        return drawn_rows(self.design, self.family, rows, draws, rng, kind=kind, average=average)

    @abstractmethod
    def _draws_for(self, rows: NewRows, n: int | None, rng: np.random.Generator) -> Draws:
        """Return draws of the effects that rows have, as many as is usual without a number."""

    @abstractmethod
    def _intervals(
        self,
        asked: prediction_table.Question,
        uncertainty: str | None,
        n: int | None,
        seed: int | None,
    ) -> prediction_table.Intervals:
        """Return the way to standard deviations and intervals of rows."""

    # -------------------------------------------------------------------------- printing

    @property
    def _kind(self) -> str:
        """What the model is, as the head of a summary says it."""
        kind = "linear mixed model" if self.design.terms else "linear model"
        if self.family.is_linear:
            return kind.capitalize()
        return f"Generalised {kind} ({self.family.name}, {self.family.link.name} link)"

    def _facts(self) -> tuple[str, ...]:
        counts = [
            f"{count} level{'s' * (count != 1)} of {name}" for name, count in self.n_groups.items()
        ]
        rows = tables.rows_in_words(self.design, self.family, knows_sigma=self.knows_sigma)
        facts = [self.design.formula.text, "; ".join([rows, *counts])]
        if self.design.success:
            facts.insert(1, f"success: {self.design.success}")
        if self.design.dropped:
            names = listed(self.design.dropped)
            facts.append(f"left out as combinations of other columns: {names}")
        return tuple(facts)


def kinds_of_fits() -> tuple[type[Fit], ...]:
    """Return the classes of fits, those that others are made of first, whatever came in first."""
    kinds = sorted(Fit.__subclasses__(), key=lambda kind: kind.__name__)
    return (*kinds, *(below for kind in kinds for below in kind.__subclasses__()))


def _by_level(term: RandomTerm, values: Array, names: tuple[str, ...]) -> pd.DataFrame:
    return pd.DataFrame(values, index=term.levels.rename(term.factor), columns=pd.Index(names))


def side_by_side(fits: Mapping[str, Fit], *unnamed: Fit) -> Table:
    """Tabulate the estimates of several fits, one column a fit.

    Parameters
    ----------
    fits : mapping of str to Fit
        Fits by the name that heads their column; any methods together.

    Returns
    -------
    DataFrame
        Rows are parameters, named as in `Fit.estimates`; nan where a fit has no such parameter.

    Examples
    --------
    >>> import ranef as rf
    >>> model = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    >>> rf.side_by_side({"REML": model.fit(), "ML": model.fit("ml")}).round(2)
                             REML       ML
    Intercept             1527.50  1527.50
    sigma                   49.51    49.51
    sd_Batch[Intercept]     42.00    37.26
    """
    argument: object = fits  # whatever it may really be
    named = isinstance(argument, Mapping) and all(isinstance(fit, Fit) for fit in argument.values())
    if unnamed or not named:
        raise FitError("side_by_side takes a dict from names to fits: {'REML': reml, 'ML': ml}.")
    columns = {name: fit.estimates() for name, fit in fits.items()}
    rows = list(dict.fromkeys(row for column in columns.values() for row in column.index))
    return Table({name: column.reindex(rows) for name, column in columns.items()})
