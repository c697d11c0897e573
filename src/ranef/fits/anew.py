"""What a fit answers of other data: responses drawn from it, and refits of its model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from ranef._typing import Array, Seed
from ranef.arguments import check_choice, check_counts, check_seed
from ranef.design.data_frame import open_frame
from ranef.design.design import Design
from ranef.design.new_data.new_rows import NewRows, with_strangers
from ranef.design.response import given_response
from ranef.errors import DataError, listed
from ranef.fits.fitted import Fitted
from ranef.fits.predictions.asked_rows import asked_rows
from ranef.likelihood.predictions import Draws, drawn_rows
from ranef.numerics.memory import check_memory


class Anew(Fitted):
    """The answers of a fit about data that are not its own."""

    options: Mapping[str, Any]

    @abstractmethod
    def _drawn(self, n: int, rng: np.random.Generator) -> Draws:
        """Return parameters and random effects for n data sets."""

    def simulate(
        self,
        n: int = 1,
        seed: Seed = None,
        groups: str = "new",
        *,
        new_data: object = None,
        weights: str | ArrayLike | None = None,
    ) -> Array:
        """Draw new responses, for the rows of the fit or for others.

        Parameters
        ----------
        n : int
            Number of data sets.
        seed : int, numpy Generator or SeedSequence, optional
            The same seed gives the same responses.
        groups : {"new", "known", "population"}
            "new": every level gets new random effects from their distribution, as in lme4's
            `simulate`, also a level that was in the data. "known": each keeps those of the fit;
            every level must have been in the data. "population": all are zero. (Known groups
            together with new ones: `draws_of(new_data, "new", "observation")`.)
        new_data : DataFrame, optional
            The rows; those of the fit by default. Columns of grouping factors that are not there
            make all rows those of one new group.
        weights : str or array, optional
            Of new rows: prior weights, or numbers of trials; one by default.

        Returns
        -------
        ndarray, shape (rows, n)
            Of a binomial model proportions; nan for new rows with missing values. A point fit
            draws at its estimates; a posterior takes a draw of its own for each data set. Prior
            weights that count rows are not used.

        Raises
        ------
        DataError
            If a level is new and `groups="known"`.

        Examples
        --------
        >>> import ranef as rf
        >>> fit = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff")).fit()
        >>> fit.simulate(1000, seed=1).mean().round()
        np.float64(1527.0)
        >>> fit.simulate(3, seed=1, new_data={"Batch": ["G", "G", "H"]}).shape
        (3, 3)
        """
        check_counts(n=n)
        seed = check_seed(seed)
        check_choice("groups", groups, GROUPS, "is not an option")
        rows = simulated_rows(self.design, new_data, groups, weights)
        what = f"{n:,} responses of {len(rows.X):,} rows"
        check_memory(float(n) * len(rows.X), what, "Take fewer at a time (`n=`).")
        rng = np.random.default_rng(seed)
        draws = self._drawn(n, rng)
        y = drawn_rows(self.design, self.family, rows, draws, rng, kind="observation")
        return rows.spread(y.T)

    def refit(self, y: ArrayLike) -> Self:
        """Fit the same model to another response, by the same method with the same options.

        Parameters
        ----------
        y : array, shape (n_obs,) or (n_obs, 1), or Series
            As the model holds its response and `simulate` returns it: `log(y)` where the formula
            says `log(y)`, proportions of a binomial family. A Series goes by its labels.

        Returns
        -------
        PointFit or PosteriorFit
            Default priors, whose scale is that of the response, are those of the new one. For
            many simulated responses `bootstrap` is faster, which refits them all together.

        Raises
        ------
        DataError
            If there are too few or too many, or a value is none that the family can take.

        Examples
        --------
        >>> import ranef as rf
        >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
        >>> fit.refit(fit.simulate(seed=1)).fixef().round().to_dict()
        {'Intercept': 1539.0}
        """
        rows = self.design.rows
        new = given_response(y, self.design.response, self.family, rows.index, rows.weights)
        again = self.asked.with_response(new).refit(self.method, **self.options)
        object.__setattr__(again, "options", self.options)
        return again  # type: ignore[no-any-return]

    def update(
        self,
        formula: str | None = None,
        data: object = None,
        *,
        method: str | None = None,
        **changes: Any,
    ) -> Any:
        """Fit a model with another formula, other data or other options.

        Parameters
        ----------
        formula, data
            As of `Model.update`: `. ~ . - x + (1 | g)`.
        method : str, optional
            That of the fit by default.
        **changes
            Other arguments of `Model`, and options of `Model.fit`. What is not named stays as it
            is: family, priors, weights, seed, number of draws.

        Returns
        -------
        PointFit or PosteriorFit

        Examples
        --------
        >>> import ranef as rf
        >>> fit = rf.fit("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"), "ml")
        >>> smaller = fit.update(". ~ . - Days")
        >>> smaller.design.formula.text, smaller.method
        ('Reaction ~ (Days | Subject)', 'ml')
        """
        return self.asked.update(method or self.method, self.options, formula, data, changes)


GROUPS = ("new", "known", "population")


def simulated_rows(
    design: Design, new_data: object, groups: str, weights: str | ArrayLike | None = None
) -> NewRows:
    """Return the rows that responses are drawn for.

    Parameters
    ----------
    design : Design
    new_data : DataFrame, optional
        The design's own rows by default.
    groups : {"new", "known", "population"}
        Whether no level is known, every level is, or no random effects take part.
    weights : str or array, optional
        Prior weights of new rows, a column's name or values; one by default.

    Raises
    ------
    DataError
        If a level is not known that should be, or weights are not positive.
    """
    rows = asked_rows(design, new_data, groups)
    if weights is not None:
        rows = replace(rows, weights=_weights_of(new_data, weights)[rows.places])
        bad = ~(rows.weights > 0) | np.isinf(rows.weights)
        if bad.any():
            where = listed(rows.index[bad])
            raise DataError(f"weights= must be positive and finite; they are not in rows {where}.")
    return with_strangers(rows) if groups == "new" else rows


def _weights_of(new_data: object, weights: str | ArrayLike) -> Array:
    if new_data is None:
        message = "weights= are those of new rows: the rows of the fit have their own. "
        raise DataError(f"{message}Give new_data= too.")
    values = open_frame(new_data).values(weights, "weights")
    assert values is not None
    return values
