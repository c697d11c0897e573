"""Log predictive densities of units that were left out: rows, or the levels of a grouping factor.

The posterior without unit A is proportional to the posterior of all data divided by
p(y_A | y_-A, phi), so draws from the posterior of all data, with weights 1 / p(y_A | y_-A, phi),
stand for it, whether or not the rows are independent given the parameters phi. Pareto smoothing
steadies the weights, and its k-hat says whether they can be trusted.

Equation `elpd` in docs/mathematics.
Source: Vehtari, Gelman & Gabry (2017), *Statistics and Computing* 27, 1413-1432; Vehtari, Simpson,
Gelman, Yao & Gabry (2024), *JMLR* 25(72); Bürkner, Gabry & Vehtari (2021), *Computational
Statistics* 36, 1243-1261 (rows that depend on each other).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ranef._typing import Array, Codes, Flags, Places
from ranef.arguments import check_choice
from ranef.design.data_frame import coded
from ranef.design.design import Design
from ranef.errors import DataError, FitError, listed, suggestion
from ranef.numerics.importance_sampling import good_khat, smoothed_columns
from ranef.numerics.markov_chains import ess_mean
from ranef.numerics.matrices import ReadOnly, chunks, summed_by

if TYPE_CHECKING:
    import xarray as xr
    from arviz_stats.utils import ELPDData


MIN_EFFICIENCY = 1e-3  # effective number of draws over their number
OBSERVATION, GROUP = "observation", "group"  # the units
MAX_EQUAL_RANGE = 1e-9  # range of log densities that differ by rounding only
NUMBERS_AT_A_TIME = 100_000  # of draws of the units that are smoothed together
MIN_SHARE_OF_OTHERS = 1e-9  # of a combination's squared length: less, and a unit alone has it


@dataclass(frozen=True, eq=False)
class Units(ReadOnly):
    """The rows, or the groups of rows, that are left out one at a time.

    Attributes
    ----------
    unit : str
        "observation" or "group".
    factor : str or None
        The grouping factor whose levels are the units.
    codes : ndarray of int, shape (n,), or None
        The level of each row; None where every row is a unit.
    labels : pandas.Index
        Labels of the U units: of the rows, or of the levels.
    """

    unit: str
    factor: str | None
    codes: Codes | None
    labels: pd.Index[Any]

    @property
    def size(self) -> int:
        """The number of units, U."""
        return len(self.labels)

    def name(self, place: int) -> str:
        """Return a unit in words: `row 7`, or `level 308 of Subject`."""
        label = self.labels[place]
        return f"row `{label}`" if self.codes is None else f"level `{label}` of `{self.factor}`"

    def rows(self, place: int) -> Places:
        """Return the positions of a unit's rows."""
        if self.codes is None:
            return np.array([place], dtype=np.intp)
        return np.flatnonzero(self.codes == place)

    def determining(self, Q: Array) -> Places:
        """Return the units whose rows alone may determine some combination of columns.

        Parameters
        ----------
        Q : ndarray, shape (n, p)
            Orthonormal columns that span the same space.
        """
        if self.codes is None:
            largest = (Q**2).sum(axis=1)
        else:
            products = summed_by(self.codes, Q[:, :, None] * Q[:, None, :])
            largest = np.linalg.eigvalsh(products)[:, -1]
        return np.flatnonzero(largest > 1 - MIN_SHARE_OF_OTHERS)


@dataclass(frozen=True, eq=False)
class Scores(ReadOnly):
    """Log predictive densities of units that were left out.

    Attributes
    ----------
    unit : str
        "observation" or "group".
    factor : str or None
        The grouping factor of a group.
    labels : pandas.Index
        Labels of the U units: of the rows, or of the levels.
    elpd : ndarray, shape (U,)
        log p(y_A | y without A).
    lpd : ndarray, shape (U,)
        Logarithm of the posterior mean of p(y_A | y without A, phi), phi from all data.
    khat : ndarray, shape (U,)
        Pareto's k-hat; nan where no importance weights were used, or others replaced them.
    mcse : ndarray, shape (U,)
        Error of elpd, of Monte Carlo, of quadrature or of an approximation.
    repaired : ndarray of bool, shape (U,)
        The units computed anew, as their importance weights could not be trusted.
    draws : int
        The number of posterior draws, or of nodes.
    method : str
        In words.
    bias : ndarray, shape (U,), or float
        How much of `mcse` is the error of an approximation, with its sign: such errors are of one
        kind in all units, and add up.
    """

    unit: str
    factor: str | None
    labels: pd.Index[Any]
    elpd: Array
    lpd: Array
    khat: Array
    mcse: Array
    repaired: Flags
    draws: int
    method: str
    bias: Array | float = 0.0

    @staticmethod
    def of(
        units: Units,
        estimates: tuple[Array, Array, Array, Array],
        repaired: Flags,
        draws: int,
        method: str,
        *,
        bias: Array | float = 0.0,
    ) -> Scores:
        """Return the scores of units from elpd, lpd, khat and mcse."""
        names = (units.unit, units.factor, units.labels)
        return Scores(*names, *estimates, repaired, draws, method, bias)

    @property
    def total(self) -> float:
        """The sum of elpd over units."""
        return float(self.elpd.sum())

    @property
    def se(self) -> float:
        """Standard error of the total, as units vary: sqrt(U) times the sample sd of elpd."""
        return float(np.sqrt(len(self.elpd) * np.var(self.elpd, ddof=1)))

    @property
    def p_loo(self) -> float:
        """The effective number of parameters: how much better the data are known from within."""
        return float((self.lpd - self.elpd).sum())

    @property
    def error(self) -> float:
        """Error of the total, of Monte Carlo, of quadrature or of an approximation."""
        return float(np.hypot(np.sqrt((self.mcse**2).sum()), np.sum(self.bias)))


def efficiency(log_p: Array, chains: int | None) -> Array:
    """Return the effective number of draws of p(y_A | y_-A, phi) over their number, shape (U,).

    Parameters
    ----------
    log_p : ndarray, shape (S, U)
    chains : int or None
        Of Markov chain draws, which lie one chain after the other; None if they are independent.
    """
    if chains is None:
        return np.ones(log_p.shape[1])
    length = len(log_p) // chains
    p = np.exp(log_p - log_p.max(axis=0))[: chains * length].reshape(chains, length, -1)
    relative = np.nan_to_num(ess_mean(p) / (chains * length), nan=1.0)
    return np.asarray(np.clip(relative, MIN_EFFICIENCY, 1.0))


def smoothed_scores(log_p: Array, reff: ArrayLike = 1.0) -> tuple[Array, Array, Array, Array]:
    """Return the densities of units left out, by smoothed importance weights of draws.

    Parameters
    ----------
    log_p : ndarray, shape (S, U)
        log p(y_A | y_-A, phi_s) at draws from the posterior of all data.
    reff : float or ndarray of shape (U,)
        Effective number of draws over S: one for independent draws.

    Returns
    -------
    elpd, lpd, khat, mcse : ndarray, shape (U,)
        As in `Scores`. k-hat is nan where all draws say the same; infinite where the draws are
        too few to tell, and, with an elpd of nan, where `log_p` is not finite.

    Notes
    -----
    The error of the self-normalised mean m of p_s with weights w_s is, to first order, the root
    of sum w_s^2 (p_s - m)^2; that of its logarithm is taken from a log-normal distribution.
    """
    U = np.shape(log_p)[1]
    reffs, scores = np.broadcast_to(reff, U), np.empty((4, U))
    for some in chunks(U, max(1, NUMBERS_AT_A_TIME // max(len(log_p), 1))):
        scores[:, some] = _smoothed(np.asarray(log_p[:, some], dtype=np.float64), reffs[some])
    elpd, lpd, khat, mcse = scores
    return elpd, lpd, khat, mcse


def _smoothed(log_p: Array, reffs: Array) -> Array:
    """Return elpd, lpd, khat and mcse of some units, shape (4, U)."""
    scores = np.full((4, log_p.shape[1]), np.nan)
    finite = np.isfinite(log_p).all(axis=0)
    scores[2, ~finite] = np.inf
    log_p, reffs = log_p[:, finite], reffs[finite]
    top = log_p.max(axis=0)
    p = np.exp(log_p - top)  # SciPy's logsumexp takes several times as long
    weights, khat = smoothed_columns(-log_p, reffs)
    lpd, of_weights = np.log(p.mean(axis=0)), (weights * p).sum(axis=0)
    variance = ((weights * (p / of_weights - 1)) ** 2).sum(axis=0) / reffs
    elpd, mcse = np.log(of_weights), np.sqrt(np.log1p(variance))
    equal = np.ptp(log_p, axis=0) < MAX_EQUAL_RANGE
    elpd[equal], khat[equal], mcse[equal] = lpd[equal], np.nan, 0.0
    scores[:, finite] = elpd + top, lpd + top, khat, mcse
    return scores


def to_arviz(scores: Scores) -> ELPDData:
    """Return the scores as ArviZ holds them: for `az.compare`, `az.plot_compare`, `az.plot_khat`.

    The pointwise values have one dimension, named by the factor (or `obs`), with the labels.
    Without any importance weights there is no `pareto_k`.
    """
    from arviz_stats.utils import ELPDDataLOO

    limit = good_khat(scores.draws)
    weighted = bool((~np.isnan(scores.khat)).any())
    return ELPDDataLOO(
        elpd=scores.total,
        se=scores.se,
        p=scores.p_loo,
        n_samples=scores.draws,
        n_data_points=len(scores.elpd),
        scale="log",
        warning=bool((scores.khat > limit).any()),
        good_k=limit,
        elpd_i=_labelled(scores, scores.elpd, "elpd_i"),
        pareto_k=_labelled(scores, scores.khat, "pareto_k") if weighted else None,  # type: ignore[arg-type]
    )


def _labelled(scores: Scores, values: Array, name: str) -> xr.DataArray:
    import xarray as xr

    dim = "obs" if scores.factor is None else scores.factor
    return xr.DataArray(values, {dim: (dim, _coordinate(scores.labels))}, (dim,), name)


def _coordinate(labels: pd.Index[Any]) -> pd.Index[Any] | NDArray[Any]:
    """Return labels as xarray takes them along one dimension: of several levels, as tuples."""
    return labels.to_flat_index().to_numpy() if labels.nlevels > 1 else labels.rename(None)


def units_of(design: Design, unit: str, group: str | ArrayLike | None) -> Units:
    """Return the rows, or the groups, that are left out one at a time.

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
    check_choice("unit", unit, (OBSERVATION, GROUP))
    if unit == OBSERVATION:
        if group is not None:
            raise FitError(
                '`group` is for unit="group"; unit="observation" leaves out single rows.'
            )
        if not design.has_rows:
            message = "this model has no rows that could be left out one at a time: leave out "
            raise FitError(f"{message}groups, unit='group' (of a comparison, units='group').")
        return Units(OBSERVATION, None, None, design.rows.index)
    units = _units_by_factor(design, group)
    if units.size < 2:
        message = f"`{units.factor}` has one group only, {listed(units.labels)}: without it no "
        raise DataError(f"{message}row is left to predict it from.")
    return units


def _units_by_factor(design: Design, group: str | ArrayLike | None) -> Units:
    factors = {term.factor: term.grouping for term in design.sufficient.terms}
    if group is None:
        group = _only_factor(list(factors))
    if isinstance(group, str):
        if group not in factors and design.has_rows and group in design.rows.data.columns:
            return _units_by_label(design, design.rows.data.columns[group])
        if group not in factors:
            hint = suggestion(group, factors) if factors else "It has none."
            raise FitError(
                f"the model has no grouping factor {group!r}. {hint} Of what the model does not "
                f"use, give the labels of the rows: group=data[{group!r}]."
            )
        return Units(GROUP, group, factors[group].codes, factors[group].levels)
    return _units_by_label(design, group)


def _only_factor(factors: list[str]) -> str:
    if not factors:
        message = "the model has no grouping factor: give the labels of the rows' groups as an "
        raise FitError(f"{message}array, `group=`.")
    if len(factors) > 1:
        message = f"the model has the grouping factors {listed(factors)}: name the one whose "
        raise FitError(f"{message}levels are to be left out, `group=`.")
    return factors[0]


def _units_by_label(design: Design, group: ArrayLike) -> Units:
    """Return groups given by the labels of the rows."""
    index, n = design.sufficient.index, len(design.sufficient.y)
    shape = np.shape(np.asarray(group, dtype=object))
    if len(shape) != 1:
        message = f"`group` has shape {shape}, expected ({n},), one label a row "
        raise DataError(f"{message}of the fit.")
    labels = group if isinstance(group, pd.Series) else pd.Series(np.asarray(group))
    if isinstance(group, pd.Series) and not labels.index.equals(index):
        if not labels.index.is_unique or not index.isin(labels.index).all():
            message = "the index of `group` is not that of the data: pass a plain array of "
            raise DataError(f"{message}{n} labels, one a row of the fit.")
        labels = labels.loc[index]
    if labels.shape != (n,):
        message = f"`group` has shape {labels.shape}, expected ({n},), one label a row "
        raise DataError(f"{message}of the fit.")
    if labels.isna().any():
        raise DataError(f"`group` has {int(labels.isna().sum())} missing labels.")
    name = "group" if labels.name is None else str(labels.name)
    factor = coded(name, labels.reset_index(drop=True))
    return Units(GROUP, name, factor.codes, factor.levels)
