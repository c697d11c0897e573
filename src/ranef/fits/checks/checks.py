"""What a fit answers of how far it describes the data: residuals, influence, a page of checks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import numpy as np
import pandas as pd
import scipy
from numpy.typing import ArrayLike

from ranef._typing import Array, Axes, Panels, Seed, Style
from ranef.arguments import check_counts, check_seed
from ranef.errors import FitError, listed, probability
from ranef.families.family import Support
from ranef.fits.checks import case_deletion, check_lines, check_page
from ranef.fits.checks.point_values import refitted, values_at
from ranef.fits.checks.residual_kinds import SIMULATIONS, residuals
from ranef.fits.checks.residual_tables import Residuals
from ranef.fits.no_pooling.group_pictures import response_label
from ranef.plots import influence, predicted_responses


class Checks(Residuals):
    """Residuals, leverages and influence of any fit."""

    def check(self) -> check_page.Check:
        """Return one page of what is known about this fit, and what to do about it.

        Returns
        -------
        Check
            Prints itself, stands in notebooks, and has `.to_frame()` (columns `verdict, topic,
            text, figure, call`). Each line is "fine", "look" or "trouble", with the figure that
            decides and the call that shows more.

        Notes
        -----
        Looked at are convergence (of draws R-hat 1.01, an effective size of 400 and no divergences:
        Vehtari, Gelman, Simpson, Carpenter & Bürkner 2021; k-hat 0.7: Vehtari, Simpson, Gelman, Yao
        & Gabry 2024), the boundary of the covariances, what the data cannot tell apart, fewer than
        five groups (Gelman & Hill 2007), coefficients whose estimates have less than a tenth of
        their variance (Raudenbush & Bryk 2002), groups with a Cook's distance above 0.5, or 1 for
        trouble (Cook & Weisberg 1999), or that change an sd by a fifth; the distribution and size
        of residuals, overdispersion and zeros by simulation (Hartig 2024, *DHARMa*; p 0.05, trouble
        at 0.01 with a ratio of 1.5); a change of an sd by 5 % from Laplace's approximation to
        quadrature; posterior means with a tail probability below 0.01 under their prior (Evans &
        Moshonov 2006), and posteriors as wide as nine tenths of it. Of many groups only the six
        that stand out are left out. What takes long, or needs rows that are not here, is not
        computed, and said. With a dozen lines, one p-value below 0.05 is no surprise.

        Examples
        --------
        >>> import ranef as rf
        >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
        >>> fit.check().worst
        'look'
        """
        return check_lines.check(self)

    # ---------------------------------------------------------------------------- residuals

    def residuals(
        self,
        kind: str = "response",
        groups: str | None = None,
        *,
        n: int = SIMULATIONS,
        seed: Seed = None,
    ) -> Array:
        """Return residuals, shape (n_obs,), in the data's row order.

        Parameters
        ----------
        kind : {"response", "pearson", "deviance", "standardized", "whitened", "quantile"}
            "response": observed minus fitted (proportions, for a binomial family). "pearson": that
            over the root of the variance function, times the root of the prior weight (number of
            trials). "deviance": the root of what the row adds to the deviance, with the sign of the
            first. None of these is divided by sigma; for a Gaussian model the last two are the
            same. "standardized": Pearson's over sigma times the root of 1 - leverage, R's
            `rstudent` of a mixed model. "whitened": the marginal residuals of a linear model times
            the inverse Cholesky factor of their covariance, uncorrelated with variance one.
            "quantile": where a response lies among those that the model simulates, ties broken at
            random; uniform between 0 and 1 if the model holds, whatever the family.
        groups : str, optional
            What fitted values are given: "known", the groups' own random effects, the default;
            "population", a typical group, for marginal residuals; "average", the mean over all
            groups. Of "quantile" whether each level has "new" random effects, the default, or those
            of the fit, "known".
        n : int
            Of simulated responses, for "quantile".
        seed : int, numpy Generator or SeedSequence, optional
            For "quantile".

        Source: Houseman, Ryan & Coull (2004), *J. American Statistical Association* 99 (whitened);
        Dunn & Smyth (1996), *J. Computational and Graphical Statistics* 5; Hartig (2024), *DHARMa*.

        Examples
        --------
        >>> import ranef as rf
        >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
        >>> fit.residuals()[:2].round(2), fit.residuals(groups="population")[:2].round(2)
        (array([ 35.11, -69.89]), array([ 17.5, -87.5]))
        """
        check_counts(n=n)
        seed = check_seed(seed)
        return residuals(self, kind, groups, n, seed)

    def ppc_table(
        self, *, groups: str = "known", prob: float = 0.95, n: int = SIMULATIONS, seed: Seed = None
    ) -> pd.DataFrame:
        """Return the distribution of the response beside that of simulated ones.

        Parameters
        ----------
        groups, prob, n, seed
            As of `plot_ppc`.

        Returns
        -------
        DataFrame
            Columns `value, observed, median, lower, upper`: densities, or shares of the rows where
            the response has few values; of the simulations the median and the interval at each
            value. `.attrs["what"]` says which.

        Examples
        --------
        >>> import ranef as rf
        >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
        >>> fit.ppc_table(seed=1).columns.tolist()
        ['value', 'observed', 'median', 'lower', 'upper']
        """
        check_counts(n=n)
        return predictive_table(self, groups, probability(prob), n, check_seed(seed))

    def plot_ppc(
        self,
        *,
        groups: str = "known",
        prob: float = 0.95,
        n: int = SIMULATIONS,
        seed: Seed = None,
        **style: Unpack[Style],
    ) -> Axes:
        """Draw the distribution of the response over that of simulated ones: a predictive check.

        Parameters
        ----------
        groups : {"known", "new", "population"}
            The random effects of the simulations, as of `simulate`.
        prob : float
            Probability of the band of simulations, at each value.
        n : int
            How many data sets are simulated: of a posterior each from a draw of its own, of a point
            fit at the estimates.
        seed : int, numpy Generator or SeedSequence, optional
        ax : Axes, optional
            A new figure is made by default.
        figsize : tuple of float, optional
            Width and height of the new figure, in inches.

        Returns
        -------
        Axes

        Notes
        -----
        ArviZ has further kinds of this picture: `az.plot_ppc_dist(fit.posterior_predictive())`.

        Source: Gelman, Meng & Stern (1996), *Statistica Sinica* 6, 733-807; Gabry, Simpson,
        Vehtari, Betancourt & Gelman (2019), *J. Royal Statistical Society A* 182, 389-402.
        """
        table = self.ppc_table(groups=groups, prob=prob, n=n, seed=seed)
        return predicted_responses.predictive(table, **style)

    # ---------------------------------------------------------------------------- influence

    def leverage(self) -> Array:
        """Return by how much each fitted value rises with its own response, shape (n,).

        Returns
        -------
        ndarray
            R's `hatvalues`: the diagonal of the matrix that makes fitted values of responses, with
            the variances as they are; of a posterior at its means, of a generalised model with the
            weights at the conditional modes. Their sum is the effective number of parameters, fixed
            and random.

        Examples
        --------
        >>> import ranef as rf
        >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
        >>> round(float(fit.leverage().sum()), 3)
        4.913
        """
        return np.asarray(self.asked.equations(values_at(self)).leverages)

    def cooks_distance(self) -> Array:
        """Return Cook's distance of each row from its residual and leverage, shape (n,).

        Returns
        -------
        ndarray
            About how far the fixed effects go when the row is left out, in the metric of their
            covariance: e^2 h / ((1 - h)^2 sigma^2 p), as lme4 and MixedModels.jl have it. Of groups
            see `influence`; `influence("observation")` leaves rows out.

        Examples
        --------
        >>> import ranef as rf
        >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
        >>> round(float(fit.cooks_distance().max()), 3)
        0.784
        """
        pearson = self.residuals("pearson")
        return case_deletion.row_distances(
            pearson, self.leverage(), self.sigma, len(self.design.fixed)
        )

    def influence(
        self,
        unit: str = "group",
        group: str | ArrayLike | None = None,
        *,
        levels: Iterable[Any] | None = None,
        seed: Seed = None,
    ) -> pd.DataFrame:
        """Return by how much estimates change as each group, or row, is left out.

        Parameters
        ----------
        unit : {"group", "observation"}
            What is left out, one at a time.
        group : str or array of shape (n_obs,), optional
            The grouping factor, by name, or the labels of the rows' groups; needed where there are
            several factors, or none.
        levels : sequence, optional
            The levels (or rows, by their labels) that are left out; by default each.
        seed : int, numpy Generator or SeedSequence, optional
            For the few scores of a posterior that take random numbers.

        Returns
        -------
        DataFrame
            A row for each unit: `level`, its number of rows `n`, Cook's distance `cook`, and for
            each parameter of `estimates()` a column with its estimate without the unit less that of
            all data; nan where a parameter is not determined any more. Of a posterior also `elpd`,
            the log predictive density of the unit given all others, and `p`, by how much its rows
            are better known with it. `.attrs["failed"]` says why there is no fit without a level.

        Raises
        ------
        FitError
            If there are too many units for one call, or the factor or a level does not exist.

        Notes
        -----
        Nothing is approximated: the model is fitted anew without the rows, with the same codings
        and priors. The change of a posterior by "mcmc" or "laplace" is that of the posterior by
        quadrature, or, with more than four variance parameters or another family, of the mode of
        the posterior, as draws are noisier than most changes. Cook's distance of a group is
        d'V^-1 d (m - p) / (m p), with d the change of the p fixed effects, V their covariance and m
        groups, as of lme4's `influence`.

        Examples
        --------
        >>> import ranef as rf
        >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
        >>> table = fit.influence()
        >>> table.loc[table["cook"].idxmax(), ["level", "Intercept"]].tolist()[0]
        'E'
        """
        fit: Any = self
        seed = check_seed(seed)
        units, places = case_deletion.units_to_leave_out(self.design, unit, group, levels)
        table = case_deletion.influence_table(refitted(fit), units, places)
        if not hasattr(fit, "marginals"):
            return table
        scores = fit.scores(unit, group, seed=seed)
        table.insert(3, "elpd", scores.elpd[places])
        table.insert(4, "p", (scores.lpd - scores.elpd)[places])
        return table

    def plot_influence(
        self,
        what: str | Sequence[str] | None = None,
        *,
        unit: str = "group",
        group: str | ArrayLike | None = None,
        levels: Iterable[Any] | None = None,
        labels: bool | str = "auto",
        **style: Unpack[Style],
    ) -> Panels:
        """Draw by how much estimates change as each group is left out.

        Parameters
        ----------
        what : str or sequence of str, optional
            Columns of `influence` that get a panel; by default Cook's distance and the three
            parameters that change most for their standard errors (an sd for its size).
        unit, group, levels
            As of `influence`.
        labels, ax, figsize
            As of `ranef.plots.influence.influence`.

        Returns
        -------
        ndarray of Axes
            The groups are ordered by Cook's distance.
        """
        fit: Any = self
        asked = [what] if isinstance(what, str) else list(what or ())
        if not hasattr(fit, "marginals") and (none := [x for x in asked if x in ("elpd", "p")]):
            raise FitError(
                f"{listed(none)} of groups is what a posterior predicts, and this is a fit by "
                f'"{self.method}": fit by method="{fit.asked.posterior_method}".'
            )
        table = self.influence(unit, group, levels=levels)
        scale = fit.estimates().abs()
        scale.update(fit.se())
        return influence.influence(table, what=what, scale=scale, labels=labels, **style)


FEW_VALUES = 40  # of a discrete response, whose shares are shown
PLACES = 256  # of a density
MARGIN = 0.15  # of the range of the response, beyond it


def predictive_table(fit: Any, groups: str, prob: float, n: int, seed: int | None) -> pd.DataFrame:
    """Return densities, or shares, of the observed and of simulated responses."""
    y, simulated = fit.design.rows.y, fit.simulate(n, seed, groups)
    values = np.unique(np.append(np.unique(y), np.unique(simulated[:, :FEW_VALUES])))
    is_share = fit.family.is_discrete and len(values) <= FEW_VALUES
    if is_share:
        found = np.array([_shares(one, values) for one in (y, *simulated.T)])
    else:
        values, edges, width = _grid(y, fit.family.range)
        found = np.array([_density(one, edges, width) for one in (y, *simulated.T)])
    lower, median, upper = np.quantile(found[1:], [(1 - prob) / 2, 0.5, (1 + prob) / 2], axis=0)
    table = pd.DataFrame(
        {"value": values, "observed": found[0], "median": median, "lower": lower, "upper": upper}
    )
    label = response_label(fit.design, fit.family)
    table.attrs |= {
        "what": "share of rows" if is_share else "density",
        "response": fit.design.success or fit.design.response if is_share else label,
        "prob": prob,
        "simulations": n,
    }
    return table


def _shares(y: Array, values: Array) -> Array:
    places = np.searchsorted(values, y)
    inside = (places < len(values)) & (values[np.minimum(places, len(values) - 1)] == y)
    return np.bincount(places[inside], minlength=len(values)) / len(y)


def _grid(y: Array, ends: Support) -> tuple[Array, Array, float]:
    """Return places for a density, the edges of bins around them, and a width of the kernel.

    At the ends of the range of responses the kernel is reflected.

    Source: Silverman (1986), *Density Estimation*, equation 3.31.
    """
    low, high = float(y.min()), float(y.max())
    spread = min(float(y.std()), float(np.ptp(np.quantile(y, [0.25, 0.75]))) / 1.34)
    width = 0.9 * (spread or float(y.std()) or 1.0) * len(y) ** -0.2
    reach = max(MARGIN * (high - low), 3 * width)
    low, high = max(low - reach, ends.lowest), min(high + reach, ends.highest)
    edges = np.linspace(low, high, PLACES + 1)
    return (edges[1:] + edges[:-1]) / 2, edges, width


def _density(y: Array, edges: Array, width: float) -> Array:
    step = edges[1] - edges[0]
    counts = np.histogram(y, edges)[0] / (len(y) * step)
    return np.asarray(scipy.ndimage.gaussian_filter1d(counts, width / step, mode="reflect"))
