"""Terms to model-matrix columns: formulaic codes what the interpreter has evaluated.

formulaic sees values under the labels of their factors, never an expression: its terms are made
of look-ups only, so it has nothing to evaluate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ranef.errors import DataError, listed
from ranef.formula import Term
from ranef.transforms import Categorical, Interpreter, Value


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
    codings : mapping of str to str
        How each factor is coded, in words, by its label.
    spec : object
        formulaic's specification, which codes new rows in the same way.
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]
    numeric: tuple[bool, ...]
    codings: Mapping[str, str]
    spec: Any


def code(interpreter: Interpreter, terms: Sequence[Term], spec: Any = None) -> Columns:
    """Code terms as columns.

    Parameters
    ----------
    interpreter : Interpreter
        Evaluates the factors.
    terms : sequence of Term
    spec : optional
        The specification of an earlier result, to code new rows in the same way.

    Raises
    ------
    DataError
        If a factor has one level only, or a level that it did not have at first.
    """
    n = len(interpreter.frame)
    if not terms:
        return Columns((), np.empty((n, 0)), (), {}, None)
    values = {str(f): interpreter.value(f) for term in terms for f in term.factors}
    values = {label: _as_factor(v) for label, v in values.items()}
    for label, value in values.items():
        _check_levels(label, value)
    matrix = _materialize(terms, {k: _for_formulaic(v) for k, v in values.items()}, n, spec)
    numeric = {label: not isinstance(v, Categorical) for label, v in values.items()}
    structure = matrix.model_spec.structure
    measured = [any(numeric.get(f.expr, False) for f in s.term.factors) for s in structure]
    return Columns(
        names=tuple(str(name) for s in structure for name in s.columns),
        values=np.asarray(matrix, dtype=np.float64).reshape(n, -1),
        numeric=tuple(m for m, s in zip(measured, structure, strict=True) for _ in s.columns),
        codings={k: _in_words(v) for k, v in values.items() if isinstance(v, Categorical)},
        spec=matrix.model_spec,
    )


def _materialize(
    terms: Sequence[Term], values: Mapping[str, Any], n: int, spec: Any
) -> Any:
    from formulaic import ModelSpec, SimpleFormula
    from formulaic.parser.types import Factor
    from formulaic.parser.types import Term as CodedTerm

    if spec is None:
        coded = [
            CodedTerm([Factor(str(f), eval_method="lookup") for f in term.factors])
            if term.factors
            else CodedTerm([Factor("1", eval_method="literal")])
            for term in terms
        ]
        spec = ModelSpec(
            formula=SimpleFormula(coded, _ordering="none"), output="pandas", na_action="ignore"
        )
    return spec.get_model_matrix(pd.DataFrame(index=pd.RangeIndex(n)), context=values)


def _as_factor(value: Value) -> Value:
    """Turn truth values into a factor with the levels False and True, as R does."""
    if isinstance(value, Categorical) or value.dtype != bool:
        return value
    return Categorical(value.astype(np.int64), pd.Index([False, True]))


def _for_formulaic(value: Value) -> Any:
    from formulaic.transforms import TRANSFORMS

    if not isinstance(value, Categorical):
        if value.ndim == 1:
            return pd.Series(value)
        return pd.DataFrame(value, columns=range(1, value.shape[1] + 1))
    series = pd.Series(pd.Categorical.from_codes(value.codes, value.levels))
    return TRANSFORMS["C"](series, value.contrasts)


def _check_levels(label: str, value: Value) -> None:
    if not isinstance(value, Categorical):
        return
    if value.unseen:
        known = listed(value.levels)
        raise DataError(f"`{label}` has new levels {listed(value.unseen)}; the model knows {known}.")
    if len(value.levels) < 2:
        message = f"the factor `{label}` has one level only, {listed(value.levels)}: leave it out."
        raise DataError(message)


def _in_words(value: Categorical) -> str:
    if value.contrasts is None:
        return f"treatment coding, reference {value.levels[0]}"
    name = type(value.contrasts).__name__.removesuffix("Contrasts").lower()
    base = getattr(value.contrasts, "base", None)
    if name == "treatment" and isinstance(base, (str, int, float)):
        return f"treatment coding, reference {base}"
    return f"{name} coding"
