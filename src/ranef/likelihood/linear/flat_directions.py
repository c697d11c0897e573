"""Directions in which covariance parameters can change and leave the covariance of y as it is.

V is linear in the elements of the terms' covariances and in the residual variance. Where a
combination of its derivatives vanishes (for REML: on what the fixed effects leave of the data), the
data say nothing of that direction, whatever the response. The rank of the Gram matrix
tr(V_i V_j), the expected information, tells; it is that of the design, the same at all
parameters, a variance of zero included. In the basis of the cross-products, and with derivatives
of unit length, neither the scale nor the origin of a predictor matters.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement, pairwise

import numpy as np
from scipy import sparse

from ranef._typing import Array, Places
from ranef.design.design import Design
from ranef.design.groups import is_nested
from ranef.design.labels import corr_name, sd_name
from ranef.errors import DataError, listed
from ranef.formula.terms import INTERCEPT
from ranef.likelihood.linear.crossproducts import CrossProducts
from ranef.likelihood.linear.expected_information import InnerProducts

MAX_FLAT_LENGTH = 1e-10  # squared, of a combination of derivatives of unit length that is zero
MIN_SHARE = 1e-6  # of a direction, below which a parameter has no part in it


@dataclass(frozen=True)
class FlatDirections:
    """Covariance parameters that the data cannot tell apart.

    Attributes
    ----------
    parameters : tuple of str
        Their names, as those of estimates.
    remedy : str
        What to write instead.
    same : str
        Why two terms are one, where they are; else empty.
    """

    parameters: tuple[str, ...]
    remedy: str
    same: str = ""

    def __str__(self) -> str:
        if len(self.parameters) == 1:
            return f"the data do not identify {listed(self.parameters)}"
        return f"the data cannot tell apart {listed(self.parameters)}"

    def said(self, *, by_priors: bool) -> str:
        """Return what is to be said of a fit, with priors or without."""
        if by_priors:
            return f"{self}; the priors decide. Without them, {self.remedy}."
        return (
            f"{self}: other values fit the data as well as the estimates do, which are arbitrary "
            f"in this respect; {self.remedy}."
        )

    def check(self) -> None:
        """Refuse two terms that are one.

        Raises
        ------
        DataError
        """
        if self.same:
            raise DataError(
                f"{self.same}, so that their variances cannot be told apart: {self.remedy}; a "
                'Bayesian fit, model.fit("mcmc"), can go on with proper priors.'
            )


def flat_directions(
    products: InnerProducts,
    cross: CrossProducts,
    design: Design,
    *,
    reml: bool,
    has_sigma: bool = True,
    known: Collection[int] = (),
) -> list[FlatDirections]:
    """Return what the data cannot tell apart, in sets that have nothing to do with each other.

    Parameters
    ----------
    products : InnerProducts
    cross : CrossProducts
    design : Design
        What these are of.
    reml : bool
        Whether the fixed effects are integrated out, so that what they explain says nothing.
    has_sigma : bool
        Whether there is a residual variance to be estimated.
    known : collection of int
        The terms whose covariances are known.
    """
    if not design.terms:
        return []
    units = tuple(u[:0] if t in known else u for t, u in enumerate(products.units))
    wanted = [np.full(len(u), t not in known) for t, u in enumerate(products.units)]
    kept = np.flatnonzero(np.append(np.concatenate(wanted), has_sigma))
    size = np.sqrt(np.diag(products.all)[kept])
    size[size == 0] = 1.0
    every, unexplained = (
        A[np.ix_(kept, kept)] / np.outer(size, size) for A in (products.all, products.unexplained)
    )
    stops = np.cumsum([0, *map(len, units), has_sigma])
    places = [np.arange(a, b) for a, b in pairwise(stops)]
    space = _Space(cross, design, units, places, size, every, unexplained if reml else every)
    return list(space.sets())


@dataclass(frozen=True, eq=False)
class _Space:
    """The span of the derivatives of V, in coordinates in which each has unit length.

    Attributes
    ----------
    cross : CrossProducts
    design : Design
    units : tuple of ndarray, shape (d_t, k, k)
        For each term the derivatives of its covariance.
    places : list of ndarray of int
        The places of each term's derivatives, and last that of the residual variance.
    size : ndarray, shape (d,)
        The length of each derivative.
    all, seen : ndarray, shape (d, d)
        Inner products, of all and of what the data say something of.
    """

    cross: CrossProducts
    design: Design
    units: tuple[Array, ...]
    places: list[Places]
    size: Array
    all: Array
    seen: Array

    def kernel(self, directions: Array) -> Array:
        """Return the combinations of directions, shape (d, r), that the data say nothing of."""
        return self._null(directions, self.seen)

    def _null(self, directions: Array, products: Array) -> Array:
        length = np.sqrt(np.maximum(((self.all @ directions) * directions).sum(axis=0), 0.0))
        unit = directions / np.where(length > 0, length, 1.0)
        values, vectors = np.linalg.eigh(unit.T @ products @ unit)
        return np.asarray(unit @ vectors[:, values < MAX_FLAT_LENGTH])

    def sets(self) -> Iterator[FlatDirections]:
        """Yield the sets of terms that flat directions join."""
        flat = self.kernel(np.eye(len(self.all)))
        if not flat.size:
            return
        joined = [[np.linalg.norm(flat[a] @ flat[b].T) for b in self.places] for a in self.places]
        n, label = sparse.csgraph.connected_components(np.array(joined) > MIN_SHARE)
        for number in range(n):
            members = np.flatnonzero(label == number).tolist()
            own = np.concatenate([self.places[t] for t in members])
            if np.abs(flat[own]).max(initial=0.0) > MIN_SHARE:
                yield self.described(members, flat)

    def described(self, members: list[int], flat: Array) -> FlatDirections:
        """Return what a set of terms, and the residual variance perhaps, leaves open."""
        terms = [t for t in members if t < len(self.units)]
        names = tuple(name for t in terms for name in self._open(t, flat))
        if len(terms) < len(members):
            names = ("sigma", *names)
        contained = self._contained(terms)
        if contained is None:
            return FlatDirections(names, self._simpler(terms))
        others = [t for t in terms if t != contained]
        inner, twin = self.design.terms[contained], self._twin(contained, others)
        if twin is None:
            texts = " and ".join(self.design.terms[t].text for t in others)
            remedy = f"leave out {inner.text}, whose covariances {texts} can have"
            return FlatDirections(names, remedy)
        outer = self.design.terms[twin]
        alike = f"`{inner.factor}` and `{outer.factor}` group the rows alike, and "
        same = alike * (inner.factor != outer.factor)
        same += f"{outer.text} can have every covariance of {inner.text}"
        return FlatDirections(names, f"leave out {inner.text}", same)

    def _open(self, t: int, flat: Array) -> list[str]:
        """Return the names of the sds and correlations of a term that flat directions change."""
        term, T = self.design.terms[t], self.cross.bases[t]
        weights = flat[self.places[t]] / self.size[self.places[t], None]
        back = np.linalg.inv(T) * np.linalg.norm(T, axis=0)[:, None]  # of columns of unit size
        moves = back @ np.tensordot(weights, self.units[t], axes=(0, 0)) @ back.T
        lengths = np.linalg.norm(moves, axis=0)
        is_open = lengths > MIN_SHARE * lengths.max()
        sds = [sd_name(term, j) for j in range(term.n_coefs) if is_open[j, j]]
        return sds + [corr_name(term, i, j) for i, j in term.covariance.pairs if is_open[i, j]]

    # ----------------------------------------------------------------------------- remedies

    def _contained(self, terms: list[int]) -> int | None:
        """Return the smallest of several terms whose covariances the others have, if there is one.

        Of equally small ones it is the last, which is the inner one of nested factors.
        """
        ordered = sorted(terms, key=lambda t: (len(self.units[t]), -t))
        return next((t for t in ordered if self._has({*terms} - {t}, t)), None)

    def _has(self, terms: Collection[int], t: int) -> bool:
        """Whether all covariances of y that a term makes can come from other terms."""
        others = self._axes(terms)
        both = np.hstack([others, self._axes([t])])
        gained = self._null(both, self.all).shape[1] - self._null(others, self.all).shape[1]
        return bool(terms) and gained == len(self.units[t])

    def _axes(self, terms: Iterable[int]) -> Array:
        """Return the directions of the parameters of some terms."""
        return np.eye(len(self.all))[:, [place for t in terms for place in self.places[t]]]

    def _twin(self, t: int, others: Iterable[int]) -> int | None:
        """Return a term that groups the rows like another and has all its covariances."""
        rows = self.design.sufficient.terms
        return next(
            (
                i
                for i in others
                if rows[i].n_levels == rows[t].n_levels
                and is_nested(*rows[i].meets(rows[t]))
                and self._has([i], t)
            ),
            None,
        )

    def _simpler(self, terms: list[int]) -> str:
        """Say what would leave nothing open: a simpler version of one term, or one term less."""
        for t in terms:
            rest = [i for i in range(len(self.places)) if i != t]
            left = self.kernel(self._axes(i for i in rest if i not in terms)).shape[1]
            for text, covariances in _versions(self.design, t):
                directions = self._coordinates(t, covariances)
                if self.kernel(np.hstack([self._axes(rest), directions])).shape[1] == left:
                    return f"write {text} in place of {self.design.terms[t].text}"
        return f"leave out {' or '.join(self.design.terms[t].text for t in terms)}"

    def _coordinates(self, t: int, covariances: Array) -> Array:
        """Return the directions of covariances of the user's coefficients, shape (r, k, k)."""
        T, units = self.cross.bases[t], self.units[t]
        in_basis = (T @ covariances @ T.T).reshape(len(covariances), -1)
        weights = np.linalg.lstsq(units.reshape(len(units), -1).T, in_basis.T, rcond=None)[0]
        directions = np.zeros((len(self.all), len(covariances)))
        directions[self.places[t]] = weights * self.size[self.places[t], None]
        return directions


def _versions(design: Design, t: int) -> Iterator[tuple[str, Array]]:
    """Yield simpler versions of a term: their text, and directions of their covariances.

    Independent effects of the cells of a factor, only what varies within groups, independent
    coefficients, no intercept, nothing but an intercept.
    """
    term, columns, axes = (
        design.terms[t],
        design.sufficient.terms[t].columns,
        np.eye(design.terms[t].n_coefs),
    )
    head, _, group = term.text.rpartition(" | ")
    if not group or term.n_coefs == 1:
        return
    has_intercept, others = term.coefs[0] == INTERCEPT, head.removeprefix("(1 + ")
    if has_intercept and not any(term.numeric) and " + " not in others:
        cells = np.unique(columns, axis=0)
        if len(cells) == term.n_coefs:
            yield f"(0 + {others} || {group}", _squares(np.linalg.inv(cells))
    varying = _varying(design, t)
    pieces = head.removeprefix("(").split(" + ")
    kept = [piece for i, piece in enumerate(pieces) if i in varying]
    if has_intercept and 1 < len(kept) < len(pieces):
        columns_kept = [j for j, i in enumerate(_pieces(design, t)) if i in varying]
        yield f"({' + '.join(kept)} | {group}", _products(axes[:, columns_kept])
    yield f"{head} || {group}", _squares(axes)
    if has_intercept:
        if all(term.numeric[1:]):
            yield f"(0 + {others} | {group}", _products(axes[:, 1:])
        yield f"(1 | {group}", _squares(axes[:, :1])


def _pieces(design: Design, t: int) -> list[int]:
    """Return which summand of a term each of its columns is of."""
    return [origin.term for origin in design.recipe.random[t][1].origins]


def _varying(design: Design, t: int) -> set[int]:
    """Return the summands of a term, the intercept among them, that vary within its groups."""
    rows, names = design.sufficient.terms[t], design.terms[t].coefs
    of_level = np.zeros((rows.n_levels, len(names)))
    of_level[rows.codes] = rows.columns
    varies = (rows.columns != of_level[rows.codes]).any(axis=0)
    varies |= np.array(names) == INTERCEPT
    return {i for i, one in zip(_pieces(design, t), varies, strict=True) if one}


def _squares(columns: Array) -> Array:
    """Return v v' for every column v."""
    return np.asarray(columns.T[:, :, None] * columns.T[:, None, :])


def _products(columns: Array) -> Array:
    """Return v w' + w v' for all pairs of columns."""
    pairs = combinations_with_replacement(columns.T, 2)
    return np.array([np.outer(v, w) + np.outer(w, v) for v, w in pairs])
