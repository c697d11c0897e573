"""What a fit draws of itself: the pattern of its matrices, the densities of its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import pandas as pd

from ranef._typing import Panels, Style
from ranef.covariances.covariance import factors
from ranef.fits.pictures import matrix_patterns, parameter_densities
from ranef.plots.curves import densities, sparsity


class Pictures:
    """The pictures of a fit that are not of its groups or rows."""

    def matrix_table(self) -> pd.DataFrame:
        """Return where the matrices of the textbook have entries, as `plot_matrices` draws them.

        Returns
        -------
        DataFrame
            Columns `matrix, row, column, value`: Z', Lambda, A = Lambda'Z', A W A' + I, and L, its
            Cholesky factor after a permutation that keeps it sparse, which is
            `.attrs["permutation"]`; `.attrs["shapes"]` has the shapes. Random effects are in the
            order of the terms, level by level.

        Source: Bates et al. (2015), *Journal of Statistical Software* 67(1), section 3.

        Examples
        --------
        >>> import ranef as rf
        >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
        >>> fit.matrix_table().groupby("matrix").size().to_dict()
        {"A = Lambda'Z'": 30, "A W A' + I": 6, 'L': 6, 'Lambda': 6, "Z'": 30}
        """
        fit: Any = self
        covariances = [term.covariance for term in fit.design.terms]
        working = getattr(getattr(fit, "estimate", None), "working_weights", None)
        weights = fit.design.rows.weights if working is None else fit.sigma**2 * working
        return matrix_patterns.patterns(fit.design, factors(fit.theta, covariances), weights)

    def plot_matrices(self, **style: Unpack[Style]) -> Panels:
        """Draw the pattern of Z', Lambda, A = Lambda'Z', A W A' + I and its Cholesky factor L.

        Parameters
        ----------
        ax : sequence of Axes, optional
            One for each matrix: five, or four where L is left out, of more than 4,000 effects.
        figsize : tuple of float, optional
            Of a new figure, in inches.

        Returns
        -------
        ndarray of Axes
            Blue entries are positive, red ones negative; titles say the shape, and how many entries
            there are. Large matrices are drawn in cells, the darker the more entries.
        """
        return sparsity.sparsity(self.matrix_table(), **style)

    def parameter_table(self, parameters: str | Sequence[str] | None = None) -> pd.DataFrame:
        """Return posterior and prior densities of parameters, as `plot_parameters` draws them.

        Parameters
        ----------
        parameters : str or sequence of str, optional
            As in `estimates()`; by default all.

        Returns
        -------
        DataFrame
            Columns `parameter, value, posterior, prior`, the prior nan where it is no density of
            the parameter by itself; `.attrs["estimates"]` has those by REML and ML.

        Raises
        ------
        FitError
            If the fit has no posterior, or no parameter of that name.

        Examples
        --------
        >>> import ranef as rf
        >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"), "quadrature")
        >>> table = fit.parameter_table("sd_Batch[Intercept]")
        >>> {k: round(v, 1) for k, v in table.attrs["estimates"]["sd_Batch[Intercept]"].items()}
        {'REML': 42.0, 'ML': 37.3}
        """
        return parameter_densities.densities(self, parameters)

    def plot_parameters(
        self,
        parameters: str | Sequence[str] | None = None,
        *,
        kind: str = "density",
        **style: Unpack[Style],
    ) -> Panels:
        """Draw the posterior density of parameters, one a panel, over their priors.

        Parameters
        ----------
        parameters
            As of `parameter_table`.
        kind : {"density", "qq"}
            "qq": quantiles against those of the normal distribution, which is a line.
        ax : Axes or sequence of Axes, optional
            One for each parameter.
        figsize : tuple of float, optional
            Of a new figure, in inches.

        Returns
        -------
        ndarray of Axes
            With the estimates by REML and by maximum likelihood marked.
        """
        table = self.parameter_table(parameters)
        return densities.densities(table, kind=kind, **style)
