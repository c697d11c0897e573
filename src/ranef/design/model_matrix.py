"""Terms to model-matrix columns: products of numbers, indicators and contrasts, and their names.

The columns are those of R's `model.matrix`, in its order; their names are those of formulaic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from math import comb, prod

import numpy as np
import pandas as pd

from ranef._typing import Array, Flags
from ranef.design.columns.written_labels import is_spoilt, numbers_hint
from ranef.design.data_frame import Categorical, check_magnitude, level_texts
from ranef.design.evaluate import Interpreter, Value
from ranef.errors import DataError, listed
from ranef.formula.codings import Product, independent_products, indicators
from ranef.formula.powers import Predictor, powers_of
from ranef.formula.syntax import Node
from ranef.formula.terms import INTERCEPT, Term, columns_of
from ranef.numerics.matrices import threads_for
from ranef.numerics.memory import check_memory

MAX_COLUMNS = 10_000  # of all terms together
MATRIX_COPIES = 3  # of the model matrix, and of its cross-products, that are made at one time
RANK_TOLERANCE = 1e-7  # of a column's length, as R's lm and lme4
FAR_APART = 1e-3  # of a column's length: residuals of which rounding cannot make dependence
MULTIPLE_OF_ERRORS = 10  # of a dependence in the data, that new rows may have
ROUNDING = 1e-9  # of a combination of columns, relative to the size of its parts
SHARE_DIGITS = 12  # of a column's share in another: beyond them it is rounding


@dataclass(frozen=True, eq=False)
class Columns:
    """A coded model matrix.

    Attributes
    ----------
    names : tuple of str
        Names of the k columns, factors in the user's words: `sex[T.F]`, `age:ch[T.Y]`.
    values : ndarray, shape (n, k)
        The columns of the rows that were coded.
    numeric : tuple of bool
        Whether a column is measured (True) or an intercept or indicator (False).
    origins : tuple of Origin
        Which term each column is of, and what it is made of.
    codings : mapping of str to str
        How each factor is coded, in words, by its label.
    products : tuple of (Product, ...)
        The products of coded factors that stand for each term, for new rows to be coded alike.
    """

    names: tuple[str, ...]
    values: Array
    numeric: tuple[bool, ...]
    origins: tuple[Origin, ...]
    codings: Mapping[str, str]
    products: tuple[tuple[Product, ...], ...] = ()

    @cached_property
    def independent(self) -> list[int]:
        """The numbers of the columns that are no combinations of earlier ones."""
        return independent_columns(self.values)

    @cached_property
    def dependences(self) -> Combinations:
        """All columns as combinations of the independent ones."""
        return combinations_of(self.values, self.values[:, self.independent])

    def broken(self, new: Array) -> Flags:
        """Return which columns of new rows are not the combinations that they are in these.

        Such a row has no estimable mean: other coefficients fit the data as well, and give it
        another one.

        Parameters
        ----------
        new : ndarray, shape (rows, k)

        Returns
        -------
        ndarray of bool, shape (rows, k)
        """
        A, basis = self.dependences.coefs, new[:, self.independent]
        size = np.abs(new) + np.abs(basis) @ np.abs(A)
        tolerance = ROUNDING * size + MULTIPLE_OF_ERRORS * self.dependences.errors
        return np.asarray(np.abs(new - basis @ A) > tolerance)


@dataclass(frozen=True, eq=False)
class Combinations:
    """Columns of one matrix, Z, as combinations of those of another, X: Z = X A.

    Attributes
    ----------
    coefs : ndarray, shape (p, k)
        A, whose entries are zero where a column of X takes no part.
    exact : ndarray of bool, shape (k,)
        Which columns of Z are such combinations.
    errors : ndarray, shape (k,)
        The largest difference between Z and X A in a row.
    """

    coefs: Array
    exact: Flags
    errors: Array


@dataclass(frozen=True)
class Origin:
    """What a column is made of.

    Attributes
    ----------
    term : int
        The number of its term.
    variables : frozenset of str
        The columns of the data that it uses.
    powers : mapping of Predictor to int
        The numeric predictors that it is a product of, with their powers.
    coded : tuple of str
        The names of the indicators and contrasts that it is a product of.
    """

    term: int
    variables: frozenset[str]
    powers: Mapping[Predictor, int] = field(default_factory=dict)
    coded: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class NearestPlace:
    """The observed place nearest to the origin of the predictors, where that was not observed.

    Attributes
    ----------
    predictors : mapping of str to float
        Those in whose observed range zero does not lie: the observed value nearest to it.
    change : ndarray, shape (k, k)
        Turns the coefficients of a term at that place into those at the origin.
    """

    predictors: Mapping[str, float]
    change: Array

    @property
    def counted(self) -> str:
        """The predictors counted from there, as a formula has them: `I(year - 1990)`."""
        signs = {name: "-" if value > 0 else "+" for name, value in self.predictors.items()}
        words = [f"I({p} {signs[p]} {abs(x):.15g})" for p, x in self.predictors.items()]
        return " and ".join(words)

    def __str__(self) -> str:
        return ", ".join(f"{name} = {value:.10g}" for name, value in self.predictors.items())


def code(interpreter: Interpreter, terms: Sequence[Term], old: Columns | None = None) -> Columns:
    """Code terms as columns.

    Parameters
    ----------
    interpreter : Interpreter
        Evaluates the factors.
    terms : sequence of Term
    old : Columns, optional
        An earlier result, to code new rows in the same way.

    Raises
    ------
    DataError
        If a factor has one level only, or a level that it did not have at first; if there are too
        many columns, or two of one name.
    """
    n = len(interpreter.frame)
    if not terms:
        return Columns((), np.empty((n, 0)), (), (), {})
    nodes = {str(f): f for term in terms for f in term.factors}
    values = {label: _as_factor(interpreter, node) for label, node in nodes.items()}
    for label, value in values.items():
        _check_kind(label, value, old)
        if isinstance(value, Categorical):
            _check_levels(label, value)
    _check_size(terms, values, n)
    if INTERCEPT in values:
        message = f"a predictor cannot be called `{INTERCEPT}`, which is the intercept's name: "
        raise DataError(message + "rename the column.")
    products = _products(terms, values) if old is None else old.products
    factors = {
        (label, by_contrasts): _coded(nodes[label], values[label], by_contrasts=by_contrasts)
        for label, by_contrasts in {part for of_term in products for one in of_term for part in one}
    }
    made = [
        (i, parts)
        for i, of_term in enumerate(products)
        for one in of_term
        for parts in _combinations([factors[part] for part in one])
    ]
    names = tuple(":".join(part.name for part in parts) or INTERCEPT for _, parts in made)
    _check_names(names, old)
    used = [frozenset(columns_of(term.factors)) for term in terms]
    has_levels = [all(isinstance(values[str(f)], Categorical) for f in t.factors) for t in terms]
    return Columns(
        names=names,
        values=_multiplied(names, [parts for _, parts in made], n),
        numeric=tuple(not has_levels[i] for i, _ in made),
        origins=tuple(Origin(i, used[i], *_origin(parts)) for i, parts in made),
        codings={k: _in_words(v) for k, v in values.items() if isinstance(v, Categorical)},
        products=products,
    )


@dataclass(frozen=True, eq=False)
class IndicatorColumns:
    """The columns of a term with an indicator of every level, whatever its coding.

    Attributes
    ----------
    values : ndarray, shape (n, k)
        The products of indicators of all levels and of numbers.
    has_first : ndarray of bool, shape (k,)
        Whether a column is of the first level of a factor.
    numbers : frozenset of str
        Those of the term's factors that are numbers.
    """

    values: Array
    has_first: Flags
    numbers: frozenset[str]


def indicator_columns(interpreter: Interpreter, term: Term) -> IndicatorColumns:
    """Return the columns of a term with an indicator of every level."""
    values, n = {str(f): _as_factor(interpreter, f) for f in term.factors}, len(interpreter.frame)
    _check_size([term], values, n)
    factors = [_coded(f, values[str(f)], by_contrasts=False) for f in term.factors]
    made = list(_combinations(factors))
    numbers = frozenset(k for k, v in values.items() if not isinstance(v, Categorical))
    first = {id(f[0]) for f, k in zip(factors, values, strict=True) if k not in numbers}
    return IndicatorColumns(
        values=_multiplied([":".join(part.name for part in parts) for parts in made], made, n),
        has_first=np.array([any(id(part) in first for part in parts) for parts in made]),
        numbers=numbers,
    )


def independent_columns(X: Array) -> list[int]:
    """Return the numbers of the columns that are not combinations of earlier ones.

    Examples
    --------
    >>> independent_columns(np.array([[1.0, 2.0, 0.0], [1.0, 2.0, 1.0], [1.0, 2.0, 5.0]]))
    [0, 2]
    """
    with threads_for(X.shape[1]):
        return _independent(X)


def _independent(X: Array) -> list[int]:
    products = X.T @ X
    lengths = np.sqrt(np.diag(products))
    kept = np.flatnonzero(lengths > 0)
    cosines = products[np.ix_(kept, kept)] / np.outer(lengths[kept], lengths[kept])
    if _are_far_apart(cosines):
        return kept.tolist()
    remaining = np.linalg.qr(X[:, kept] / lengths[kept], mode="r")
    while len(kept):
        residuals = np.abs(np.diag(np.linalg.qr(remaining, mode="r")))
        residuals = np.append(residuals, np.zeros(len(kept) - len(residuals)))  # beyond the rows
        dependent = np.flatnonzero(residuals < RANK_TOLERANCE)
        if not len(dependent):
            break
        kept = np.delete(kept, dependent[0])
        remaining = np.delete(remaining, dependent[0], axis=1)
    return kept.tolist()


def _are_far_apart(cosines: Array) -> bool:
    """Whether columns are so far from depending on each other that their cosines show it.

    The squares of their residuals have errors of the order of 1e-16, lengths of 1e-8.
    """
    try:
        residuals = np.diag(np.linalg.cholesky(cosines))
    except np.linalg.LinAlgError:
        return False
    return bool(residuals.min(initial=1.0) > FAR_APART)


def combinations_of(Z: Array, X: Array) -> Combinations:
    """Find the columns of Z among the columns of X and their combinations.

    A column that stands in X is that column alone. Of dependent columns of X only the first ones
    take part in combinations.

    Examples
    --------
    >>> X = np.array([[1.0, 2.0], [1.0, 0.0], [1.0, 5.0]])
    >>> found = combinations_of(np.array([[5.0, 0.0], [1.0, 1.0], [11.0, 0.0]]), X)
    >>> found.coefs[:, 0].round(9).tolist(), found.exact.tolist()
    ([1.0, 2.0], [True, False])
    """
    lengths, sizes = np.linalg.norm(X, axis=0), np.linalg.norm(Z, axis=0)
    A, errors = np.zeros((X.shape[1], Z.shape[1])), np.zeros(Z.shape[1])
    others = []
    for j, (z, size) in enumerate(zip(Z.T, sizes, strict=True)):
        alike = np.flatnonzero(np.abs(lengths - size) <= ROUNDING * size)
        same = (i for i in alike if np.linalg.norm(X[:, i] - z) <= ROUNDING * size)
        if (place := next(same, None)) is None:
            others.append(j)
        else:
            A[place, j] = 1.0
    exact = np.ones(len(sizes), dtype=bool)
    if others:
        kept = independent_columns(X)
        basis = X[:, kept] / lengths[kept]
        solution = np.linalg.lstsq(basis, Z[:, others], rcond=None)[0]
        solution[np.abs(solution) <= ROUNDING * sizes[others]] = 0.0
        residuals = Z[:, others] - basis @ solution
        A[np.ix_(kept, others)] = solution / lengths[kept, None]
        exact[others] = np.linalg.norm(residuals, axis=0) <= RANK_TOLERANCE * sizes[others]
        errors[others] = np.abs(residuals).max(axis=0, initial=0.0)
    return Combinations(A, exact, errors)


def nearest_place(interpreter: Interpreter, columns: Columns) -> NearestPlace | None:
    """Return the observed place nearest to the origin; None where coefficients are the same there.

    A column that is a product of powers of predictors is, around another place, a sum of products
    of lower powers (Taylor's theorem). So the intercept at that place is the value there, and the
    coefficient of `x` the slope. Products that the term has no column for are left alone.
    """
    powers = [origin.powers for origin in columns.origins]
    values = {p: _values(interpreter, p) for of_column in powers for p in of_column}
    place = {p: x for p in values if (x := _nearest_to_zero(values[p]))}
    rest = columns.values.copy()  # without the predictors that are never zero
    for p in place:
        rest /= values[p][:, None] ** [of_column.get(p, 0) for of_column in powers]
    size = np.linalg.norm(rest, axis=0)
    size[size == 0] = 1.0
    rest, taylor = rest / size, np.eye(len(powers))
    for i, q in enumerate(powers if place else ()):
        same = [j for j, of_column in enumerate(powers) if of_column == q]
        coefficients = np.array([_taylor_coefficient(own, q, place) for own in powers])
        coefficients[same] = 0.0
        if i == same[0] and coefficients.any():
            higher = np.flatnonzero(coefficients)
            shares = np.linalg.lstsq(rest[:, same], rest[:, higher])[0].round(SHARE_DIGITS)
            shares *= coefficients[higher] * size[higher] / size[same][:, None]
            taylor[np.ix_(same, higher)] = shares
    if (taylor == np.eye(len(powers))).all():
        return None
    return NearestPlace({_label(p): x for p, x in place.items()}, np.linalg.inv(taylor))


def _values(interpreter: Interpreter, predictor: Predictor) -> Array:
    """Return the values of a predictor, shape (n,)."""
    node, column = predictor
    values = interpreter.numeric(node)
    return values if values.ndim == 1 else values[:, column]


def _nearest_to_zero(values: Array) -> float:
    """Return the number nearest to zero in the range of values; zero where they do not vary."""
    low, high = float(values.min()), float(values.max())
    return min(max(low, 0.0), high) if low < high else 0.0


def _taylor_coefficient(
    powers: Mapping[Predictor, int],
    lower: Mapping[Predictor, int],
    place: Mapping[Predictor, float],
) -> float:
    """Return the coefficient of a product of lower powers around a place in one of powers."""
    if any(powers.get(p, 0) < n for p, n in lower.items()):
        return 0.0
    left = [(p, n, n - lower.get(p, 0)) for p, n in powers.items()]
    return prod(comb(n, over) * place.get(p, 0.0) ** over for p, n, over in left)


@dataclass(frozen=True, eq=False)
class _Part:
    """A factor's part in a column: its name, its values, and which predictor it is, if numeric."""

    name: str
    values: Array
    predictor: Predictor | None


def _products(
    terms: Sequence[Term], values: Mapping[str, Value]
) -> tuple[tuple[Product, ...], ...]:
    """Return the products of coded factors that stand for each term."""
    labels = [[str(f) for f in term.factors] for term in terms]
    has_levels = [{k: isinstance(values[k], Categorical) for k in of_term} for of_term in labels]
    return tuple(map(tuple, independent_products(has_levels)))


def _coded(node: Node, value: Value, *, by_contrasts: bool) -> list[_Part]:
    """Return the columns of one factor: indicators or contrasts of levels, or numbers."""
    label = str(node)
    if isinstance(value, Categorical):
        texts, m = level_texts(value.levels).tolist(), len(value.levels)
        if by_contrasts:
            names, columns = value.coding.names(texts), value.coding.columns(value.codes, m)
        else:
            names, columns = texts, indicators(value.codes, np.arange(m))
        return [_Part(f"{label}[{s}]", c, None) for s, c in zip(names, columns.T, strict=True)]
    numbers = np.asarray(value, dtype=np.float64)
    if numbers.ndim == 1:
        return [_Part(label, numbers, (node, 0))]
    return [_Part(f"{label}[{j + 1}]", column, (node, j)) for j, column in enumerate(numbers.T)]


def _combinations(factors: Sequence[Sequence[_Part]]) -> Iterator[tuple[_Part, ...]]:
    """Yield one part of each factor, the first varying fastest."""
    return (parts[::-1] for parts in product(*reversed(factors)))


def _multiplied(names: Sequence[str], made: Sequence[tuple[_Part, ...]], n: int) -> Array:
    """Return the products of parts as columns, shape (n, k)."""
    columns = np.ones((n, len(made)), order="F")
    for j, (name, parts) in enumerate(zip(names, made, strict=True)):
        for part in parts:
            columns[:, j] *= part.values
        check_magnitude(f"`{name}`", columns[:, j])
    return columns


def _origin(parts: Sequence[_Part]) -> tuple[Mapping[Predictor, int], tuple[str, ...]]:
    """Return the powers of the numeric predictors in a column, and its coded parts."""
    powers: Counter[Predictor] = Counter()
    for part in parts:
        if part.predictor is not None:
            powers.update(powers_of(*part.predictor))
    return powers, tuple(part.name for part in parts if part.predictor is None)


def _label(predictor: Predictor) -> str:
    node, column = predictor
    return f"{node}[{column + 1}]" if column else str(node)


def _as_factor(interpreter: Interpreter, node: Node) -> Value:
    """Evaluate; turn truth values into a factor with the levels False and True, as R does."""
    value = interpreter.value(node)
    if isinstance(value, Categorical) or value.dtype != bool:
        return value
    levels = interpreter.memory.levels.setdefault(str(node), pd.Index([False, True]))
    codes = value.astype(np.int64)
    return Categorical(codes, levels, codes)


def _check_levels(label: str, value: Categorical) -> None:
    if value.doubt:
        raise DataError(value.doubt)
    if value.unseen:
        message = f"`{label}` has new levels {listed(value.unseen)}; "
        raise DataError(f"{message}the model knows {listed(value.levels)}.")
    if len(value.levels) < 2:
        message = f"the factor `{label}` has one level only, {listed(value.levels)}: leave it out."
        raise DataError(message)


def _check_kind(label: str, value: Value, old: Columns | None) -> None:
    """Refuse numbers where there were categories, and the other way round."""
    if old is not None and (label in old.codings) != isinstance(value, Categorical):
        was, now = ("categories", "numbers") if label in old.codings else ("numbers", "categories")
        hint = numbers_hint(label, value.levels) if isinstance(value, Categorical) else ""
        raise DataError(f"`{label}` holds {now}, but held {was} when the model was built.{hint}")


def _check_size(terms: Sequence[Term], values: Mapping[str, Value], n: int) -> None:
    """Refuse terms of too many columns, before they fill the memory."""
    widths = {
        label: len(v.levels) if isinstance(v, Categorical) else int(np.prod(v.shape[1:]))
        for label, v in values.items()
    }
    counts = {term: prod(widths[str(f)] for f in term.factors) for term in terms}
    total, (widest, most) = sum(counts.values()), max(counts.items(), key=lambda item: item[1])
    if most > MAX_COLUMNS:
        factors = {label: values[label] for label in map(str, widest.factors)}
        hints = [
            numbers_hint(label, v.levels)
            for label, v in factors.items()
            if isinstance(v, Categorical) and is_spoilt(v.levels)
        ]
        message = (
            f"`{widest}` stands for {most} columns, more than {MAX_COLUMNS}: is it a grouping "
        )
        raise DataError(f"{message}factor, as in `(1 | {widest})`?{''.join(hints)}")
    remedy = f"Leave terms out: `{widest}` alone stands for {most} of them."
    if total > MAX_COLUMNS:
        message = f"the terms stand for about {total} columns, more than {MAX_COLUMNS}. "
        raise DataError(message + remedy)
    what = f"a model matrix of {n:,} rows and about {total} columns"
    check_memory(float(MATRIX_COPIES) * total * (n + total), what, remedy, error=DataError)


def _check_names(names: tuple[str, ...], old: Columns | None) -> None:
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        message = f"two columns of the model matrix would be called `{name}`: "
        raise DataError(message + "rename the column or the level that brings it in.")
    if old is not None and names != old.names:
        message = f"there are the columns {listed(names)} where the model has {listed(old.names)}: "
        raise DataError(message + "a function gives another number of columns for these rows.")


def _in_words(value: Categorical) -> str:
    name = value.coding.name
    if name not in ("treatment", "SAS"):
        return f"{name} coding"
    base = value.coding.settings.get("base", 0 if name == "treatment" else -1)
    return f"treatment coding, reference {value.levels[base]}"
