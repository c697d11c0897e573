"""What every fit hands on: `tidy` and `glance`, in the words of R's broom.mixed."""

from __future__ import annotations

from collections.abc import Sequence

from ranef.fits.reports.tidy_tables import glance_row, tidy_table
from ranef.printing.frames import Table
from ranef.printing.summary import Printed


class Reports(Printed):
    """A fit as tables to go on with; it prints as its summary."""

    def tidy(
        self,
        effects: str | Sequence[str] = "all",
        *,
        prob: float = 0.95,
        method: str | None = None,
        df: str | None = None,
    ) -> Table:
        """Return the numbers of the fit as a tidy table, one row each.

        Parameters
        ----------
        effects : {"all", "fixed", "random", "levels", "coefs"} or sequence of these
            "fixed": the fixed effects. "random": standard deviations and correlations of the random
            effects, sigma, and what else the family has. "levels": the random effects of each
            level, as `ranef_table`. "coefs": the coefficients of each, as `coef_table`. "all":
            the first two.
        prob : float
            Probability of the intervals.
        method : {"wald", "profile", "bootstrap"}, optional
            Of the intervals of a point fit; "wald", the default, gives none of variances.
        df : {"satterthwaite", "kenward-roger"}, optional
            Degrees of freedom of the tests of the fixed effects of a linear point fit.

        Returns
        -------
        DataFrame
            Columns `effect, group, term, estimate, se, lower, upper`, with names of parameters as
            in `estimates()`, `level` where there are some, and of a point fit `statistic`, and
            `df` and `p_value` where there is a test. Of a posterior `estimate` is the mean and
            `se` the standard deviation. Where a number has no error or interval, it is nan.

        Examples
        --------
        >>> import ranef as rf
        >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
        >>> fit.tidy("fixed")
        95 % Wald intervals
        <BLANKLINE>
        effect  group  term       estimate  se  lower  upper  statistic
        fixed          Intercept      1528  19   1490   1565      78.80
        """
        return tidy_table(self, effects, prob, method, df)

    def glance(self, *, loo: bool = False) -> Table:
        """Return the fit as one row, to be put below those of others.

        Parameters
        ----------
        loo : bool
            Whether a posterior's expected log predictive density of rows left out is computed.

        Returns
        -------
        DataFrame
            Columns `method, n_obs, n_groups` (a dict, as `fit.n_groups`), `sigma` and `converged`;
            of a point fit `df, loglik, objective, aic, bic, is_singular`; of a posterior
            `log_marginal_likelihood` (nan where the method does not give it; see the method of this
            name) and, where it was asked for, `elpd` and `elpd_se`.

        Examples
        --------
        >>> import pandas as pd
        >>> import ranef as rf
        >>> model = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
        >>> both = pd.concat([model.fit().glance(), model.fit("ml").glance()])
        >>> both[["method", "n_obs", "df", "loglik"]].round(2)
          method  n_obs  df  loglik
        0   reml     30   3 -159.83
        0     ml     30   3 -163.66
        """
        return glance_row(self, loo=loo)
