"""What posteriors are compared by: predictions of what is left out, and marginal likelihoods."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ranef.arguments import check_positive_numbers, check_seed
from ranef.design.data_frame import coded
from ranef.design.design import Design
from ranef.errors import DataError, FitError, listed, suggestion
from ranef.fits.fit import Fit
from ranef.leave_one_out.elpd import GROUP, OBSERVATION, Scores, Units, to_arviz
from ranef.likelihood.predictions import Draws
from ranef.posterior.marginal_likelihood import MarginalLikelihood

if TYPE_CHECKING:
    import xarray as xr
    from arviz_stats.utils import ELPDData

    from ranef.fits.diagnostics import Reliability
    from ranef.posterior.savage_dickey import DensityRatio


SCALES = 2.0 ** np.linspace(-2, 2, 9)  # of the priors of the sds


class Scored(Fit):
    """What posteriors are compared by.

    Attributes
    ----------
    evidence : MarginalLikelihood or None
        log p(y), where the way to the posterior gave it.
    """

    evidence: MarginalLikelihood | None

    @property
    @abstractmethod
    def posterior(self) -> xr.DataTree:
        """The draws."""

    @property
    @abstractmethod
    def diagnostics(self) -> Reliability:
        """What speaks for and against the numbers."""

    @abstractmethod
    def draws_at(self, chosen: NDArray[np.intp] | slice = slice(None)) -> Draws:
        """Return some draws of all parameters, by default all of them, chain after chain."""

    def loo(
        self,
        unit: str = "observation",
        group: str | ArrayLike | None = None,
        *,
        seed: int | None = None,
    ) -> ELPDData:
        """Return how well the model predicts what is left out: rows, or whole groups.

        Parameters
        ----------
        unit : {"observation", "group"}
            The question. "observation": a new row of a *known* group, whose other rows are there;
            it asks whether a term helps to predict these groups. "group": all rows of a *new*
            group together, of which nothing is known (leave one group out); it asks which
            random-effects structure describes groups, and its number of units is that of the
            groups. The random effects are integrated out in either.
        group : str or array of shape (n_obs,), optional
            The grouping factor whose levels are left out, by name; or the labels of the rows'
            groups. Needed where there are several factors, or none.
        seed : int, optional
            For the few units whose importance weights cannot be trusted and that are computed
            anew, where that takes random numbers.

        Returns
        -------
        ELPDData
            ArviZ's: `elpd`, `se` (over units), `p`, `elpd_i` (one value a unit, with its label),
            `pareto_k` (None where no importance weights are involved, nan for units that were
            computed anew).

        Notes
        -----
        For a linear model log p(y_A | y without A) is a closed form given the variance
        parameters; by "quadrature" it is then integrated without Monte Carlo error, and from draws
        it is a Pareto-smoothed importance sampling estimate, replaced by a ratio of two marginal
        likelihoods, or by bridge sampling, where k-hat is too large.
        Of other models the random effects are integrated out by quadrature or by Laplace's
        approximation.

        Source: Vehtari, Gelman & Gabry (2017), *Statistics and Computing* 27; Merkle, Furr &
        Rabe-Hesketh (2019), *Psychometrika* 84; Bürkner, Gabry & Vehtari (2021), *Computational
        Statistics* 36.

        Examples
        --------
        >>> import ranef as rf
        >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"), "quadrature")
        >>> new_group = fit.loo("group")
        >>> round(float(new_group.elpd), 1), new_group.n_data_points
        (-166.8, 6)
        """
        return to_arviz(self.scores(unit, group, seed=seed))

    def scores(
        self,
        unit: str = "observation",
        group: str | ArrayLike | None = None,
        *,
        seed: int | None = None,
    ) -> Scores:
        """Return what `loo` returns as a record, with the error of every unit's number.

        Parameters
        ----------
        unit, group, seed
            As of `loo`.
        """
        check_seed(seed)
        units = units_of(self.design, unit, group)
        return self.asked.scores(self, units, np.random.default_rng(seed))

    def log_marginal_likelihood(self, *, seed: int | None = None) -> MarginalLikelihood:
        """Return log p(y), all parameters integrated out, with its error.

        Parameters
        ----------
        seed : int, optional
            For the bridge sampling of draws.

        Returns
        -------
        MarginalLikelihood
            A record with `value`, `mcse` and `method`: quadrature for a linear model with up to
            four variance parameters, bridge sampling (warp-III) or importance sampling otherwise.

        Raises
        ------
        FitError
            For improper priors, which leave it undefined, and for draws that are not to be
            relied on.

        Examples
        --------
        >>> import ranef as rf
        >>> model = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
        >>> round(model.fit("quadrature").log_marginal_likelihood().value, 4)
        -168.6996
        """
        check_seed(seed)
        return self.asked.evidence(self, np.random.default_rng(seed))

    def prior_sensitivity(self, scales: ArrayLike | None = None) -> pd.DataFrame:
        """Return how log p(y) changes with the scale of the priors of all random-effect sds.

        Parameters
        ----------
        scales : array, optional
            What the scales of these priors are multiplied by; by default from 1/4 to 4.

        Returns
        -------
        DataFrame
            Columns `scale`, `log_ratio` (log p(y) less its value at scale 1) and `mcse`. It is
            computed by reweighting the fit: nothing is fitted again.
        """
        wanted = SCALES if scales is None else check_positive_numbers("scales", scales)
        found = self.asked.sensitivity(self, wanted)
        return pd.DataFrame(
            {"scale": wanted, "log_ratio": found.log_ratio, "mcse": found.mcse},
        )

    def savage_dickey(self, name: str) -> DensityRatio:
        """Return the Bayes factor of the model without a parameter, from its posterior at zero.

        Parameters
        ----------
        name : str
            A correlation or standard deviation, as in `estimates()`.

        Returns
        -------
        DensityRatio
            A record with `log_bf01`, and the posterior and prior densities at zero whose ratio
            it is: a second route to the ratio of two marginal likelihoods.

        Raises
        ------
        FitError
            If the prior has no finite density at zero there, or is not that of the simpler model.
        """
        return self.asked.savage_dickey(self, name)


def units_of(design: Design, unit: str, group: str | ArrayLike | None) -> Units:
    """Return what is left out, one at a time.

    Parameters
    ----------
    design : Design
    unit : {"observation", "group"}
    group : str or array of shape (n,), optional
        A grouping factor of the design, or the labels of the rows' groups.

    Raises
    ------
    FitError
        If the unit or the factor does not exist, or there is no telling which is meant.
    DataError
        If the labels do not fit the rows, or there is one group only.
    """
    if unit not in (OBSERVATION, GROUP):
        raise FitError(
            f"unit={unit!r} does not exist. {suggestion(str(unit), [OBSERVATION, GROUP])}"
        )
    if unit == OBSERVATION:
        if group is not None:
            raise FitError(
                '`group` is for unit="group"; unit="observation" leaves out single rows.'
            )
        return Units(OBSERVATION, None, None, design.rows)
    found = _groups(design, group)
    if len(found.labels) < 2:
        message = f"`{found.factor}` has one group only, {listed(found.labels)}: without it no "
        raise DataError(f"{message}row is left to predict it from.")
    return found


def _groups(design: Design, group: str | ArrayLike | None) -> Units:
    factors = {term.factor: term for term in design.terms}
    if group is None:
        group = _only(list(factors))
    if isinstance(group, str):
        if group not in factors:
            known = suggestion(group, factors) if factors else "It has none."
            message = f"the model has no grouping factor {group!r}. {known} Labels of the rows "
            raise FitError(f"{message}may be given as an array.")
        return Units(GROUP, group, factors[group].codes, factors[group].levels)
    return _labelled(design, group)


def _only(factors: list[str]) -> str:
    if not factors:
        message = "the model has no grouping factor: give the labels of the rows' groups as an "
        raise FitError(f"{message}array, `group=`.")
    if len(factors) > 1:
        message = f"the model has the grouping factors {listed(factors)}: name the one whose "
        raise FitError(f"{message}levels are to be left out, `group=`.")
    return factors[0]


def _labelled(design: Design, group: ArrayLike) -> Units:
    """Return groups given by the labels of the rows."""
    shape = np.shape(np.asarray(group, dtype=object))
    if len(shape) != 1:
        message = f"`group` has shape {shape}, expected ({design.n_obs},), one label a row "
        raise DataError(f"{message}of the fit.")
    labels = group if isinstance(group, pd.Series) else pd.Series(np.asarray(group))
    if isinstance(group, pd.Series) and not labels.index.equals(design.rows):
        if not labels.index.is_unique or not design.rows.isin(labels.index).all():
            message = "the index of `group` is not that of the data: pass a plain array of "
            raise DataError(f"{message}{design.n_obs} labels, one a row of the fit.")
        labels = labels.loc[design.rows]
    if labels.shape != (design.n_obs,):
        message = f"`group` has shape {labels.shape}, expected ({design.n_obs},), one label a row "
        raise DataError(f"{message}of the fit.")
    if labels.isna().any():
        raise DataError(f"`group` has {int(labels.isna().sum())} missing labels.")
    name = "group" if labels.name is None else str(labels.name)
    found = coded(name, labels.reset_index(drop=True))
    return Units(GROUP, name, found.codes, found.levels)
