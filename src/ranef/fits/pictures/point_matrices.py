"""The textbook's matrices of a point fit, to teach with: Z, Lambda, L with R_ZX and R_X, and V."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import sparse

from ranef._typing import Array
from ranef.errors import FitError
from ranef.likelihood import textbook_matrices
from ranef.likelihood.estimate import FittedModel


class PointMatrices(FittedModel):
    """The matrices that a point fit has of its model."""

    def lambda_blocks(self) -> dict[str, pd.DataFrame]:
        """Return each term's relative covariance factor, k x k, by label."""
        return {
            t.label: pd.DataFrame(Lambda, index=pd.Index(t.coefs), columns=pd.Index(t.coefs))
            for t, Lambda in zip(self.design.terms, self.estimate.Lambdas, strict=True)
        }

    def Z(self) -> sparse.csc_array:
        """Return the random-effects model matrix, n x q, sparse."""
        return textbook_matrices.random_effects_matrix(self.design)

    def Lambda(self) -> sparse.csc_array:
        """Return the relative covariance factor of all random effects, q x q, sparse."""
        return textbook_matrices.relative_factor(self.design, self.estimate.Lambdas)

    def V(self, rows: ArrayLike | None = None, *, correlation: bool = False) -> sparse.csc_array:
        """Return the marginal covariance of the response of a linear model, n x n, sparse.

        The random effects integrated out, it is V = sigma^2 (Z Lambda Lambda' Z' + W^-1): rows that
        share a group are correlated, and that is all that random effects do to them.

        Parameters
        ----------
        rows : array of bool or int, optional
            The rows of the data that are wanted, as a mask or by their places; all by default.
        correlation : bool
            Whether correlations are returned.

        Raises
        ------
        FitError
            If the model is generalised: there the covariance depends on the means; or if there is
            no memory for V.

        Examples
        --------
        >>> import ranef as rf
        >>> data = rf.load_dataset("Dyestuff")
        >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", data)
        >>> fit.V(data["Batch"] == "A", correlation=True).toarray()[0].round(3)
        array([1.   , 0.418, 0.418, 0.418, 0.418])
        """
        if not self.family.is_linear:
            raise FitError(
                f"the rows of a {self.family.name} model have no covariance apart from their "
                "means. That of the linear predictor is made of fit.Z() and fit.Lambda()."
            )
        try:
            places = None if rows is None else np.arange(self.design.n_obs)[np.asarray(rows)]
        except IndexError as error:
            n = self.design.n_obs
            raise FitError(
                f"rows= is a mask of {n:,} truth values, or places from 0 to {n - 1:,}, got "
                f"{rows!r}."
            ) from error
        one = self.estimate
        V = textbook_matrices.marginal_covariance(self.design, one.Lambdas, one.sigma, places)
        if not correlation:
            return V
        inverse_sds = sparse.diags_array(1 / np.sqrt(V.diagonal()))
        return sparse.csc_array(inverse_sds @ V @ inverse_sds)

    def cholesky(self, *, fixed: bool = False) -> Array:
        """Return L with L L' = Lambda' Z' W Z Lambda + I, q x q, dense lower triangular.

        W has the prior weights; for a generalised model the observed information of each row's
        linear predictor, at the conditional modes and times sigma^2.

        Parameters
        ----------
        fixed : bool
            Whether the rows of the fixed effects follow: (q + p) x (q + p), with R_ZX' below L and
            R_X' in the corner, where sigma^2 (R_X' R_X)^-1 is the covariance of the fixed effects
            given theta.

        Examples
        --------
        >>> import ranef as rf
        >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
        >>> R_X = fit.cholesky(fixed=True)[6:, 6:].T
        >>> float(fit.sigma / R_X[0, 0]).__round__(4), float(fit.se().iloc[0]).__round__(4)
        (19.3834, 19.3834)
        """
        working = self.estimate.working_weights
        weights = self.design.rows.weights if working is None else self.estimate.sigma**2 * working
        Lambdas = self.estimate.Lambdas
        return textbook_matrices.cholesky_factor(self.design, Lambdas, weights, fixed=fixed)
