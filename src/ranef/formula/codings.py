"""How factors become columns: contrasts of levels, and which factors of a term are coded by them.

A factor of m levels has m indicators, or m - 1 contrasts where its constant stands in the model
already. Which of the two a term needs follows from the terms before it: the columns of all terms
are independent whatever the data, and span what the products of all indicators would.

Source: Chambers & Hastie (1992), *Statistical Models in S*, sections 2.3.2 and 2.4.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray

from ranef._typing import Array, Codes

type Product = tuple[tuple[str, bool], ...]
"""Factors that are multiplied: the label of each, and whether it is coded by contrasts."""

_DEGREES = {1: ".L", 2: ".Q", 3: ".C"}  # of polynomial contrasts, as R calls them


@dataclass(frozen=True)
class Coding:
    """The coding of a factor by contrasts: its name and settings.

    The setting `base` is the number of a level, not its label.
    """

    name: str = "treatment"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def base(self, m: int) -> int | None:
        """Return the number of the reference level of m; None where there is none."""
        last = {"treatment": 0, "SAS": m - 1}.get(self.name)
        return last if last is None else int(self.settings.get("base", last))

    def names(self, levels: Sequence[str]) -> list[str]:
        """Return what the contrasts are called, given the levels as text.

        Examples
        --------
        >>> Coding().names(["a", "b", "c"]), Coding("poly").names(["a", "b", "c"])
        (['T.b', 'T.c'], ['.L', '.Q'])
        """
        if (base := self.base(len(levels))) is not None:
            return [f"T.{level}" for i, level in enumerate(levels) if i != base]
        if self.name == "poly":
            return [_DEGREES.get(d, f"^{d}") for d in range(1, len(levels))]
        initial = {"sum": "S", "helmert": "H", "diff": "D"}[self.name]
        return [
            f"{initial}.{level}" for level in (levels[1:] if self._from_second else levels[:-1])
        ]

    @property
    def _from_second(self) -> bool:
        """Whether the contrasts belong to all levels but the first, or all but the last."""
        return bool(
            self.settings.get("reverse" if self.name == "helmert" else "backward", True)
        ) and (self.name != "sum")

    def columns(self, codes: Codes, m: int) -> Array:
        """Return the contrasts of rows, shape (n, m - 1), given the levels of these, shape (n,)."""
        if (base := self.base(m)) is not None:
            return indicators(codes, np.delete(np.arange(m), base))
        return np.asarray(self.matrix(m)[codes])

    def matrix(self, m: int) -> Array:
        """Return the contrasts of each of m levels, shape (m, m - 1).

        Examples
        --------
        >>> Coding("helmert").matrix(3)
        array([[-1., -1.],
               [ 1., -1.],
               [ 0.,  2.]])
        """
        i, j = np.ogrid[:m, : m - 1]
        match self.name:
            case "sum":
                contrasts = np.where(i < m - 1, i == j, -1.0)
            case "helmert":
                contrasts = np.where(i <= j, -1.0, (i == j + 1) * (j + 1.0))
                if self.settings.get("scale", False):
                    contrasts /= j + 2
                if not self._from_second:
                    contrasts = contrasts[::-1, ::-1]
            case "diff":
                contrasts = (j + 1) / m - (i <= j)
                contrasts *= 1 if self._from_second else -1
            case "poly":
                scores = legendre.legvander(np.linspace(-1, 1, m), m - 1)
                orthogonal, triangular = np.linalg.qr(scores)
                contrasts = (orthogonal * np.sign(np.diag(triangular)))[:, 1:]
            case _:
                contrasts = self.columns(np.arange(m), m)
        return np.asarray(contrasts, dtype=np.float64)


def indicators(codes: Codes, levels: NDArray[np.integer]) -> Array:
    """Return which of some levels each row has, as numbers, shape (n, levels)."""
    return np.asarray(levels[:, None] == codes, dtype=np.float64).T  # column by column


def independent_products(terms: Iterable[Mapping[str, bool]]) -> Iterator[list[Product]]:
    """Yield the products of coded factors that stand for each term.

    Parameters
    ----------
    terms : iterable of mapping of str to bool
        The labels of the factors of each term, and whether a factor has levels.

    Examples
    --------
    >>> for products in independent_products([{}, {"a": True}, {"x": False, "b": True}]):
    ...     print(products)
    [()]
    [(('a', True),)]
    [(('x', False), ('b', False))]
    """
    spanned: set[frozenset[tuple[str, bool]]] = set()
    for factors in terms:
        choices = [
            ((label, True), None) if has_levels else ((label, False),)
            for label, has_levels in factors.items()
        ]
        parts = [tuple(part for part in parts if part) for parts in product(*choices)]
        new = [part for part in parts if frozenset(part) not in spanned]
        spanned.update(map(frozenset, new))
        yield _joined(new)


def _joined(products: Iterable[Product]) -> list[Product]:
    """Return the fewest products that span the same: contrasts and a constant are indicators."""
    found: list[Product] = []
    for one in sorted(products, key=len):
        for smaller in found:
            others = set(one) - set(smaller)
            label, by_contrasts = next(iter(others), ("", False))
            if len(one) == len(smaller) + 1 and len(others) == 1 and by_contrasts:
                whole = tuple((name, coded and name != label) for name, coded in one)
                found = _joined([*(p for p in found if p != smaller), whole])
                break
        else:
            found.append(one)
    return found
