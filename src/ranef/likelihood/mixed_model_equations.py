"""Henderson's mixed-model equations: the joint errors of estimated fixed and random effects.

With G the covariance of the random effects b given the fixed ones and the data, and V that of the
fixed effects, the error of b-hat is that of b given beta, and that of beta carried into the modes:

    b-hat - b = e - A (beta-hat - beta),    e ~ N(0, G),    A = G Z'W X / sigma^2

e and beta-hat - beta being independent. Of a generalised model these are the equations at the
conditional modes, with the observed information of the rows as their weights.

Source: Henderson (1975), *Biometrics* 31, 423-447; Robinson (1991), *Statistical Science* 6, 15-32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import sparse

from ranef._typing import Array
from ranef.design.design import Design
from ranef.design.groups import transposed
from ranef.design.rows.rows import TermRows
from ranef.likelihood.generalized.weighted_crossproducts import TermColumns, weighted
from ranef.likelihood.linear.blocked_cholesky import Factorized, modes, selected_inverse, solve
from ranef.likelihood.linear.sums.level_sums import level_sums


@dataclass(frozen=True, eq=False)
class MixedModelEquations:
    """The equations of a fitted model, solved.

    Attributes
    ----------
    design : Design
        With the rows of the factorised system.
    factorized : Factorized
    bases : sequence of ndarray, shape (k, k)
        That of the cross-products, term by term.
    scale : float
        The standard deviation that covariances of the factorised system are relative to.
    weights : ndarray, shape (n,)
        Of the rows in the factorised system.
    """

    design: Design
    factorized: Factorized
    bases: Sequence[Array]
    scale: float
    weights: Array

    @cached_property
    def modes_by_fixed(self) -> list[Array]:
        """By how much conditional modes fall as fixed effects rise, A, shape (m, k, p)."""
        rows, backs = self.design.sufficient, self._backs
        X = self.weights[:, None] * rows.X
        unweighted = replace(rows, weights=np.ones_like(self.weights))
        by_level = level_sums(unweighted, [np.eye(term.n_coefs) for term in rows.terms], X)
        sums = [
            back.T @ by_level.fixed(t).reshape(term.n_levels, term.n_coefs, X.shape[1])
            for t, (term, back) in enumerate(zip(rows.terms, backs, strict=True))
        ]
        falls = [
            solve(self.factorized, [of_term[:, :, j] for of_term in sums])
            for j in range(X.shape[1])
        ]
        empty = [of_term[:, :, :0] for of_term in sums]
        return [
            np.stack([fall[t] @ back.T for fall in falls], axis=2) if falls else empty[t]
            for t, back in enumerate(backs)
        ]

    @cached_property
    def fitted_by_fixed(self) -> Array:
        """By how much fitted values rise as fixed effects do, X - Z A, shape (n, p)."""
        rows = self.design.rows
        slopes = rows.X.copy()
        for term, falls in zip(rows.terms, self.modes_by_fixed, strict=True):
            slopes -= np.einsum("nk,nkp->np", term.columns, falls[term.codes])
        return slopes

    @cached_property
    def leverages(self) -> Array:
        """By how much each fitted value rises with its own response, shape (n,).

        The diagonal of the matrix that makes fitted values of responses, variances as they are; of
        a generalised model that of its last iteration. Their sum is the effective number of
        parameters.

        Source: Demidenko & Stukel (2005), *Statistics in Medicine* 24, 893-909.
        """
        rows, slopes = self.design.rows, self.fitted_by_fixed
        blocks = [
            TermColumns(term.codes, term.columns @ back, term.n_levels, covariance)
            for term, back, covariance in zip(
                rows.terms, self._backs, self.factorized.cross.covariances, strict=True
            )
        ]
        of_effects = weighted(blocks, len(rows.y)).leverages(selected_inverse(self.factorized))
        of_fixed = np.einsum("np,pq,nq->n", slopes, self._inverse_of_fixed, slopes)
        return np.asarray(self.weights * (of_effects + of_fixed))

    def effects_of(self, y: Array) -> tuple[Array, list[Array]]:
        """Return the fixed effects and the modes of a linear model for another response.

        Variances stay as they are.

        Parameters
        ----------
        y : ndarray, shape (n,)
        """
        rows = self.design.rows
        y = self.weights * (y - rows.offset)
        beta = self._inverse_of_fixed @ (self.fitted_by_fixed.T @ y)
        left = y - self.weights * (rows.X @ beta)
        sums = [
            (transposed(term.codes, term.columns @ back, term.n_levels) @ left).reshape(
                term.n_levels, term.n_coefs
            )
            for term, back in zip(rows.terms, self._backs, strict=True)
        ]
        found = solve(self.factorized, sums) if sums else []
        return beta, [b @ back.T for b, back in zip(found, self._backs, strict=True)]

    @cached_property
    def _inverse_of_fixed(self) -> Array:
        """The inverse of X'V^-1 X, relative, shape (p, p)."""
        WX = self.weights[:, None] * self.design.rows.X
        return np.linalg.pinv(WX.T @ self.fitted_by_fixed, hermitian=True)

    def conditional_variances(self, terms: Sequence[TermRows]) -> Array:
        """Return z'G z of rows, the variance of their random effects given beta, shape (n,).

        Covariances of effects of different terms and levels are in it.

        Parameters
        ----------
        terms : sequence of TermRows
            Some of the design's terms; effects of new levels are left out.
        """
        labels = [term.label for term in self.design.terms]
        places, backs = [labels.index(term.label) for term in terms], self._backs
        pairs = list(zip(places, terms, strict=True))
        columns = [
            np.where(term.is_new[:, None], 0.0, term.columns @ backs[t]) for t, term in pairs
        ]
        levels = [np.maximum(term.codes, 0) for term in terms]
        key = np.column_stack([*columns, *levels])
        _, first, back = np.unique(key, axis=0, return_index=True, return_inverse=True)
        variances = np.empty(len(first))
        for i, row in enumerate(first):
            z = self._zeros()
            for t, level, values in zip(places, levels, columns, strict=True):
                z[t][level[row]] = values[row]
            variances[i] = self._variance(z)
        return self.scale**2 * variances[back.ravel()]

    def variances_of_sums(self, sums: Sequence[sparse.csr_array]) -> Array:
        """Return the variances of sums of random effects given beta, shape (r,).

        Parameters
        ----------
        sums : sequence of sparse array, shape (r, m k)
            By how much each sum rises with the effects of a term, level by level.
        """
        variances = np.zeros(sums[0].shape[0] if sums else 0)
        for i in range(len(variances)):
            of_terms = zip(sums, self._zeros(), self._backs, strict=True)
            z = [of[[i]].toarray().reshape(empty.shape) @ back for of, empty, back in of_terms]
            variances[i] = self._variance(z)
        return self.scale**2 * variances

    def conditional_draws(self, n: int, rng: np.random.Generator) -> list[Array]:
        """Return n draws of e for all random effects, shape (n, m, k), term by term."""
        cross, gamma = self.factorized.cross, np.zeros(self.factorized.cross.p)
        sizes = [(m, c.k) for m, c in zip(cross.n_levels, cross.covariances, strict=True)]
        draws, center = [np.empty((n, *size)) for size in sizes], modes(self.factorized, gamma)
        for i in range(n):
            noise = [self.scale * rng.standard_normal(size) for size in sizes]
            drawn = modes(self.factorized, gamma, noise)
            for of_term, b, mean, back in zip(draws, drawn, center, self._backs, strict=True):
                of_term[i] = (b - mean) @ back.T
        return draws

    @property
    def _backs(self) -> list[Array]:
        """From the basis to the user's coefficients."""
        return [np.linalg.inv(T) for T in self.bases]

    def _zeros(self) -> list[Array]:
        cross = self.factorized.cross
        return [np.zeros((m, c.k)) for m, c in zip(cross.n_levels, cross.covariances, strict=True)]

    def _variance(self, z: Sequence[Array]) -> float:
        """Return z'G z over the squared scale, z having an entry for every effect."""
        if not any(of_term.any() for of_term in z):
            return 0.0
        found = solve(self.factorized, z)
        return sum(float(np.vdot(one, other)) for one, other in zip(found, z, strict=True))
