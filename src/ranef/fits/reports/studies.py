"""What a fit answers of estimates with known standard errors, as a meta-analysis has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import pandas as pd
from scipy import linalg, special

from ranef._typing import Array, Axes, Style
from ranef.design.design import Design
from ranef.design.labels import sd_name
from ranef.design.new_data.new_rows import own_rows
from ranef.errors import FitError, probability
from ranef.fits.fitted import Fitted
from ranef.fits.predictions import prediction_table
from ranef.likelihood.predictions import NormalRows
from ranef.plots import forest
from ranef.posterior.draws import covariances_of
from ranef.posterior.quadrature import moments
from ranef.printing.frames import captioned
from ranef.printing.summary import Summary

_OF_I2 = (
    "I2 is the share of the variance of the estimates that is not their error, at the error of a "
    "typical study. It is no measure of how much effects differ: the same tau gives a larger I2 "
    "with larger studies. How much they differ is tau, in the units of the response, and the "
    "interval of a new study: fit.forest_table()."
)
_OF_H2 = (
    "H2 is the variance of the estimates over that of their errors. The intervals of tau2, I2 and "
    "H2 are that of tau."
)


class Studies(Fitted):
    """The answers of a fit of a model with `se=`: how much studies differ, and forests of them."""

    @property
    def knows_sigma(self) -> bool:
        """Whether the model says what sigma is, as where standard errors of rows are given."""
        return self.engine is not None and self.engine.priors.known_sigma is not None

    def forest_table(self, prob: float = 0.95) -> pd.DataFrame:
        """Return what a forest plot shows: each study's own estimate, the model's, and the mean.

        Parameters
        ----------
        prob : float
            Probability of the intervals.

        Returns
        -------
        DataFrame
            A row for each row of the data: `kind` "study", `label` (its level, or the label of
            the row), its `own` estimate with `own_lower` and `own_upper` from its standard error,
            and the model's, shrunken, `estimate` with `lower` and `upper`. Where the only fixed
            effect is the intercept, a row of kind "mean" (the mean of all effects), and one of
            kind "new": the effect of a study that is not there, whose interval is the prediction
            interval. `.attrs["interval"]` says what the intervals of the model are.

        Notes
        -----
        Intervals of a posterior are highest density intervals, by quadrature without Monte Carlo
        error; they contain the uncertainty of tau. Those of a point fit take tau as known and are
        too short with few studies, most of all where tau is estimated to be zero.

        Source: Higgins, Thompson & Spiegelhalter (2009), *J. Royal Statistical Society A* 172,
        137-159 (the prediction interval).

        Examples
        --------
        >>> import ranef as rf
        >>> data = {"school": list("ABCDEFGH"), "y": [28, 8, -3, 7, -1, 1, 18, 12],
        ...         "s": [15, 10, 16, 11, 9, 11, 10, 18]}
        >>> fit = rf.fit("y ~ 1 + (1 | school)", data, "quadrature", se="s")
        >>> table = fit.forest_table().set_index("label").rename_axis(None)
        >>> table.loc[["A", "mean", "new"], ["own", "estimate", "lower", "upper"]].round(1)
               own  estimate  lower  upper
        A     28.0      10.2   -2.9   25.3
        mean   NaN       7.9   -1.2   17.0
        new    NaN       7.9   -7.9   23.9
        """
        self._check_known("a forest")
        prob, rows, settings = probability(prob), self.design.rows, settings_of(self)
        half = special.ndtri(0.5 + prob / 2) * settings.sigma[0] / np.sqrt(rows.weights)
        table = _means_table(self, row_means(self.design, settings), prob)
        own = {"own": rows.y, "own_lower": rows.y - half, "own_upper": rows.y + half}
        table = pd.DataFrame({"kind": "study", "label": _labels(self.design)} | own).join(table)
        if self.design.fixed == ("Intercept",) and _only_intercepts(self.design):
            ends = {"mean": self._common(prob)}
            if self.design.terms:
                ends["new"] = tuple(_means_table(self, new_mean(settings), prob).iloc[0])
            more = pd.DataFrame(list(ends.values()), columns=table.columns[-3:])
            more.insert(0, "label", list(ends))
            more.insert(0, "kind", list(ends))
            table = pd.concat([table, more], ignore_index=True)[list(table.columns)]
        is_point = len(settings.weights) == 1
        how = "interval, tau as if known" if is_point else "HPD interval"
        return captioned(table, interval=f"{100 * prob:g} % {how}")

    def _common(self, prob: float) -> tuple[float, float, float]:
        lower, upper = self.confint(prob=prob).loc[self.estimates().index[0], ["lower", "upper"]]
        return float(self.fixef().iloc[0]), float(lower), float(upper)

    def plot_forest(self, prob: float = 0.95, **style: Unpack[Style]) -> Axes:
        """Draw each study's own estimate, the model's, the mean and a new study.

        "Own" is what the study says by itself, with no use of the others.

        Parameters
        ----------
        prob : float
            Probability of the intervals.
        ax : matplotlib Axes, optional
            A new figure is made by default.
        figsize : tuple of float, optional
            Of a new figure, in inches.

        Returns
        -------
        matplotlib Axes
            Grey squares, the larger the smaller the standard error: the study by itself. Blue
            points: the study in the light of all others, shrunken towards the mean, the more the
            less it knows by itself; their intervals are shorter than its own where the others help.
            The diamond is the mean with its interval; the bar below it is where the effect of a new
            study lies, which does not shrink to a point however many studies there are.
        """
        table = self.forest_table(prob)
        return forest.forest(table, response=self.design.response, **style)

    def heterogeneity(self, prob: float = 0.95) -> Summary:
        """Return how much the effects of studies differ: tau, I2, and the test of no difference.

        Parameters
        ----------
        prob : float
            Probability of the intervals: of a fit by "reml" or "ml" the profile likelihood, of a
            posterior the highest density.

        Returns
        -------
        Summary
            `.to_frame()` has rows `tau` (the sd of the effects), `tau2`, `I2` and `H2`, and columns
            `estimate`, `lower`, `upper`.

        Raises
        ------
        FitError
            If the model has other random effects than one intercept for each study.

        Source: Higgins & Thompson (2002), *Statistics in Medicine* 21, 1539-1558; with predictors
        Viechtbauer (2010), *Journal of Statistical Software* 36(3).

        Examples
        --------
        >>> import ranef as rf
        >>> data = {"school": list("ABCDEFGH"), "y": [28, 8, -3, 7, -1, 1, 18, 12],
        ...         "s": [15, 10, 16, 11, 9, 11, 10, 18]}
        >>> fit = rf.fit("y ~ 1 + (1 | school)", data, "ml", se="s")
        >>> fit.heterogeneity().to_frame().round(2)
              estimate  lower   upper
        tau        0.0    0.0   13.02
        tau2       0.0    0.0  169.46
        I2         0.0    0.0    0.55
        H2         1.0    1.0    2.25
        """
        self._check_known("heterogeneity")
        if len(self.design.terms) != 1 or not _only_intercepts(self.design):
            raise FitError(
                "heterogeneity is that of a model with one intercept for each study, such as "
                "`y ~ 1 + (1 | study)`; of others see fit.varcorr()."
            )
        (term,) = self.design.terms
        tau2 = float(self.varcorr().cov[term.label].to_numpy()[0, 0])
        name, settings = sd_name(term, 0), settings_of(self)
        ends = self._ends(name, probability(prob))
        sigma2 = float(settings.sigma[0]) ** 2
        q, df, typical = _cochran(self.design, sigma2)
        taus = np.sqrt(settings.covs[0][:, 0, 0])
        shares = settings.weights @ (taus**2 / (taus**2 + typical))
        squares = ends**2
        frame = pd.DataFrame(
            {
                "tau": [self.estimates()[name], *ends],
                "tau2": [tau2, *squares],
                "I2": [shares, *squares / (squares + typical)],
                "H2": [1 + tau2 / typical, *1 + squares / typical],
            },
            index=["estimate", "lower", "upper"],
        ).T
        p = float(special.chdtrc(df, q))
        null = "all effects are the same"
        if self.design.fixed != ("Intercept",):
            null = "effects differ by the fixed effects only"
        test = f"Q = {q:.4g} on {df} df, p = {p:.3g}: the test that {null}"
        facts = (self.design.formula.text, f"{self.design.n_obs} estimates of {term.factor}", test)
        kind = "HPD" if len(settings.weights) > 1 else "profile-likelihood"
        return Summary(
            title="How much effects differ",
            facts=facts,
            sections=((f"With {100 * prob:g} % {kind} intervals", frame),),
            notes=(_OF_I2, _OF_H2),
            frame=frame,
        )

    def _ends(self, name: str, prob: float) -> Array:
        """Return the interval of the sd between studies; nan where a fit has none."""
        fit: Any = self
        if self.method == "map":
            return np.full(2, np.nan)
        if self.method in ("reml", "ml"):
            table = fit.profile(name, prob=prob).confint(prob)
        else:
            table = fit.confint(prob=prob)
        return np.asarray(table.loc[name, ["lower", "upper"]], dtype=np.float64)

    def _check_known(self, what: str) -> None:
        if not self.knows_sigma:
            raise FitError(
                f"{what} is of estimates whose standard errors are known: give them to the model, "
                'as in rf.Model("y ~ 1 + (1 | study)", data, se="s").'
            )


def settings_of(fit: Any) -> Settings:
    """Return the variances of a fit, and the fixed effects given them: one, nodes, or draws."""
    if isinstance(marginals := getattr(fit, "marginals", None), moments.LatticeMarginals):
        mixture = marginals.exact.mixture
        covs = [covariances_of(marginals, term) for term in fit.design.terms]
        beta, beta_cov = marginals.exact.beta(mixture)
        return Settings(mixture.weights, tuple(covs), beta, beta_cov, mixture.sigma)
    numbers = fit._numbers()  # noqa: SLF001 -- as all answers of fits have them
    if marginals is None:
        covs = [cov[None] for cov in numbers.covs]
        vcov, sigma = fit.vcov().to_numpy()[None], np.array([fit.sigma])
        return Settings(np.ones(1), tuple(covs), numbers.beta[None], vcov, sigma)
    n, p = numbers.beta.shape
    sigma = np.broadcast_to(numbers.parameters["sigma"], n)
    return Settings(np.full(n, 1 / n), numbers.covs, numbers.beta, np.zeros((n, p, p)), sigma)


def _labels(design: Design) -> list[str]:
    """Return the level of each row in the first term whose levels have one row each, or its label.

    The terms stand by decreasing number of levels.
    """
    for term in design.rows.terms[:1]:
        if term.n_levels == design.n_obs:
            return [str(term.grouping.levels[code]) for code in term.codes]
    return [str(label) for label in design.rows.index]


def _only_intercepts(design: Design) -> bool:
    return all(term.coefs == ("Intercept",) for term in design.terms)


def _cochran(design: Design, sigma2: float) -> tuple[float, int, float]:
    """Return Cochran's Q, its degrees of freedom, and the error variance of a typical study."""
    rows = design.rows
    w = rows.weights / sigma2
    root = np.sqrt(w)[:, None]
    q, _ = linalg.qr(rows.X * root, mode="economic")
    y = (rows.y - rows.offset) * root[:, 0]
    residuals = y - q @ (q.T @ y)
    df = design.n_obs - q.shape[1]
    trace = float(w.sum() - ((q * root) ** 2).sum())
    return float(residuals @ residuals), df, df / trace


# ---------------------------------------------------------------------------- the mean of each row


@dataclass(frozen=True, eq=False)
class Settings:
    """Covariances with the distribution of beta given them; there may be several.

    Attributes
    ----------
    weights : ndarray, shape (C,)
        They sum to one.
    covs : tuple of ndarray, shape (C, k, k)
        The covariance of each term.
    beta : ndarray, shape (C, p)
    beta_cov : ndarray, shape (C, p, p)
        Zero where beta is a draw.
    sigma : ndarray, shape (C,)
    """

    weights: Array
    covs: tuple[Array, ...]
    beta: Array
    beta_cov: Array
    sigma: Array


def row_means(design: Design, settings: Settings) -> NormalRows:
    """Return the mean of each row, in every setting."""
    rows = design.rows
    means, variances = (np.empty((len(settings.weights), design.n_obs)) for _ in range(2))
    y, pairs = rows.y - rows.offset, [t.codes[:, None] == t.codes for t in rows.terms]
    for c, (beta, beta_cov) in enumerate(zip(settings.beta, settings.beta_cov, strict=True)):
        G = np.zeros((design.n_obs, design.n_obs))
        for term, same, covs in zip(rows.terms, pairs, settings.covs, strict=True):
            G += same * (term.columns @ covs[c] @ term.columns.T)
        V = G + np.diag(settings.sigma[c] ** 2 / rows.weights)
        A = np.linalg.solve(V, G).T
        B = rows.X - A @ rows.X
        means[c] = rows.offset + rows.X @ beta + A @ (y - rows.X @ beta)
        variance = np.diag(G) - (A * G).sum(axis=1) + ((B @ beta_cov) * B).sum(axis=1)
        variances[c] = np.maximum(variance, 0.0)
    return _normal(settings, means, variances)


def new_mean(settings: Settings) -> NormalRows:
    """Return the mean of a new level of every term, intercepts all of them."""
    variance = settings.beta_cov[:, 0, 0] + sum(cov[:, 0, 0] for cov in settings.covs)
    return _normal(settings, settings.beta[:, :1], variance[:, None])


def _normal(settings: Settings, means: Array, variances: Array) -> NormalRows:
    return NormalRows(settings.weights, means, variances, np.zeros((1, 1)), np.empty((0, 1)))


def _means_table(fit: Fitted, normal: NormalRows, prob: float) -> pd.DataFrame:
    """Return means with their intervals."""
    tables, is_point = prediction_table, len(normal.weights) == 1
    spread_of = tables.spread_of_estimate if is_point else tables.spread_of_posterior
    rows, asked = own_rows(fit.design), tables.Question(kind="link", prob=prob)
    _, lower, upper = spread_of(fit.family, rows, normal, asked, lambda _: normal.mean)
    return pd.DataFrame({"estimate": normal.expected, "lower": lower, "upper": upper})
