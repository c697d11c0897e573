"""Terms to model-matrix columns: formulaic codes what the interpreter has evaluated.

formulaic sees values under names made up here (`f0`, `f1`) and levels by their numbers, never a
word of the user: its terms are made of look-ups only, so it has nothing to evaluate, and no label
can clash with another or mean something to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ranef.design.data_frame import Categorical, Coding
from ranef.design.evaluate import Interpreter, Value
from ranef.errors import DataError, listed
from ranef.formula.syntax import Node
from ranef.formula.terms import INTERCEPT, Term, columns_of

MAX_COLUMNS = 10_000


@dataclass(frozen=True, eq=False)
class Columns:
    """A coded model matrix.

    Attributes
    ----------
    names : tuple of str
        Names of the k columns, as formulaic gives them: `sex[T.F]`, `age:ch[T.Y]`.
    values : ndarray, shape (n, k)
    numeric : tuple of bool
        Whether a column is measured (True) or an intercept or indicator (False).
    origins : tuple of Origin
        Which term each column is of, and which columns of the data it uses.
    codings : mapping of str to str
        How each factor is coded, in words, by its label.
    spec : object
        formulaic's specification, which codes new rows in the same way.
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]
    numeric: tuple[bool, ...]
    origins: tuple[Origin, ...]
    codings: Mapping[str, str]
    spec: Any


@dataclass(frozen=True)
class Origin:
    """The term that a column belongs to, by its number, and the columns of the data it uses."""

    term: int
    variables: frozenset[str]


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
        return Columns((), np.empty((n, 0)), (), (), {}, None)
    values = {str(f): _as_factor(interpreter, f) for term in terms for f in term.factors}
    for label, value in values.items():
        _check_kind(label, value, old)
        if isinstance(value, Categorical):
            _check_levels(label, value)
    _check_size(terms, values)
    if INTERCEPT in values:
        message = f"a predictor cannot be called `{INTERCEPT}`, which is the intercept's name: "
        raise DataError(message + "rename the column.")
    aliases = {label: f"f{i}" for i, label in enumerate(values)}
    matrix = _materialize(terms, aliases, values, n, None if old is None else old.spec)
    structure = matrix.model_spec.structure
    original = {alias: (label, values[label]) for label, alias in aliases.items()}
    names = [_named(str(name), original) for s in structure for name in s.columns]
    _check_names(names)
    measured = [
        any(not isinstance(values[str(f)], Categorical) for f in term.factors) for term in terms
    ]
    origins = [Origin(i, frozenset(columns_of(term.factors))) for i, term in enumerate(terms)]
    return Columns(
        names=tuple(names),
        values=np.asarray(matrix, dtype=np.float64).reshape(n, len(names)),
        numeric=tuple(m for m, s in zip(measured, structure, strict=True) for _ in s.columns),
        origins=tuple(o for o, s in zip(origins, structure, strict=True) for _ in s.columns),
        codings={k: _in_words(v) for k, v in values.items() if isinstance(v, Categorical)},
        spec=matrix.model_spec,
    )


def _materialize(
    terms: Sequence[Term],
    aliases: Mapping[str, str],
    values: Mapping[str, Value],
    n: int,
    spec: Any,
) -> Any:
    from formulaic import ModelSpec, SimpleFormula
    from formulaic.parser.types import Factor
    from formulaic.parser.types import Term as CodedTerm

    if spec is None:
        coded = [
            CodedTerm([Factor(aliases[str(f)], eval_method="lookup") for f in term.factors])
            if term.factors
            else CodedTerm([Factor("1", eval_method="literal")])
            for term in terms
        ]
        spec = ModelSpec(
            formula=SimpleFormula(coded, _ordering="none"), output="pandas", na_action="ignore"
        )
    context = {aliases[label]: _for_formulaic(value) for label, value in values.items()}
    return spec.get_model_matrix(pd.DataFrame(index=pd.RangeIndex(n)), context=context)


def _named(name: str, original: Mapping[str, tuple[str, Value]]) -> str:
    """Put the user's words into a column's name: `f0[T.1]:f1` becomes `sex[T.F]:age`."""
    return ":".join(_factor_name(factor, original) for factor in name.split(":"))


def _factor_name(name: str, original: Mapping[str, tuple[str, Value]]) -> str:
    alias, bracket, inside = name.partition("[")
    if alias not in original:
        return name
    label, value = original[alias]
    coding, dot, number = inside.removesuffix("]").rpartition(".")
    if isinstance(value, Categorical) and number.isdecimal():
        return f"{label}[{coding}{dot}{value.levels[int(number)]}]"
    return f"{label}{bracket}{inside}"


def _as_factor(interpreter: Interpreter, node: Node) -> Value:
    """Evaluate; turn truth values into a factor with the levels False and True, as R does."""
    value = interpreter.value(node)
    if isinstance(value, Categorical) or value.dtype != bool:
        return value
    levels = interpreter.memory.levels.setdefault(str(node), pd.Index([False, True]))
    return Categorical(value.astype(np.int64), levels)


def _for_formulaic(value: Value) -> Any:
    from formulaic.transforms import C

    if not isinstance(value, Categorical):
        if value.ndim == 1:
            return pd.Series(value)
        return pd.DataFrame(value, columns=range(1, value.shape[1] + 1))
    series = pd.Series(pd.Categorical.from_codes(value.codes, pd.RangeIndex(len(value.levels))))
    return C(series, _contrasts(value.coding))


def _contrasts(coding: Coding) -> Any:
    from formulaic.transforms import contrasts

    kinds = {
        "treatment": contrasts.TreatmentContrasts,
        "SAS": contrasts.SASContrasts,
        "sum": contrasts.SumContrasts,
        "helmert": contrasts.HelmertContrasts,
        "diff": contrasts.DiffContrasts,
        "poly": contrasts.PolyContrasts,
    }
    return kinds[coding.name](**coding.settings)


def _check_levels(label: str, value: Categorical) -> None:
    if value.unseen:
        message = f"`{label}` has new levels {listed(value.unseen)}; "
        message += f"the model knows {listed(value.levels)}."
        if set(map(str, value.unseen)) & set(map(str, value.levels)):
            message += " A number and its text are different levels."
        raise DataError(message)
    if len(value.levels) < 2:
        message = f"the factor `{label}` has one level only, {listed(value.levels)}: leave it out."
        raise DataError(message)


def _check_kind(label: str, value: Value, old: Columns | None) -> None:
    """Refuse numbers where there were categories, and the other way round."""
    if old is not None and (label in old.codings) != isinstance(value, Categorical):
        was, now = ("categories", "numbers") if label in old.codings else ("numbers", "categories")
        raise DataError(f"`{label}` holds {now}, but held {was} when the model was built.")


def _check_size(terms: Sequence[Term], values: Mapping[str, Value]) -> None:
    """Refuse a term of too many columns, before they fill the memory."""
    widths = {
        label: len(v.levels) if isinstance(v, Categorical) else int(np.prod(v.shape[1:]))
        for label, v in values.items()
    }
    for term in terms:
        width = prod(widths[str(f)] for f in term.factors)
        if width > MAX_COLUMNS:
            message = f"`{term}` stands for {width} columns, more than {MAX_COLUMNS}: "
            raise DataError(message + f"is it a grouping factor, as in `(1 | {term})`?")


def _check_names(names: Sequence[str]) -> None:
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        message = f"two columns of the model matrix would be called `{name}`: "
        raise DataError(message + "rename the column or the level that brings it in.")


def _in_words(value: Categorical) -> str:
    name = value.coding.name
    if name not in ("treatment", "SAS"):
        return f"{name} coding"
    base = value.coding.settings.get("base", 0 if name == "treatment" else -1)
    return f"treatment coding, reference {value.levels[base]}"
