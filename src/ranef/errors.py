"""Exceptions, warnings, and the `Convergence` enumeration.

- `RanefError`
    - `FormulaError`: the formula cannot be read, or asks for something that is not allowed
    - `DataError`: the data cannot carry the model that the formula asks for
    - `FitError`: a fit was asked for in a way that has no answer
- `RanefWarning`
    - `DataWarning`: rows or columns were left out
    - `ConvergenceWarning`: the numbers should not be trusted as they are
"""

from __future__ import annotations

import difflib
import os
import unicodedata
import warnings
from collections.abc import Iterable
from enum import Enum
from numbers import Real
from pathlib import Path

_MAX_NAMES = 40  # in an error
_LINE = 80  # letters
_PACKAGE = f"{Path(__file__).parent}{os.sep}"


class RanefError(ValueError):
    """Base class of the errors that ranef raises on purpose."""


class FormulaError(RanefError):
    """A formula that cannot be read or is not allowed.

    Parameters
    ----------
    message : str
        The fault, what was expected instead, and the remedy.
    formula : str, optional
        The whole formula; with `span` the fault is marked by carets under it.
    span : tuple of int, optional
        First and one-past-last character of the fault.
    """

    def __init__(
        self, message: str, formula: str | None = None, span: tuple[int, int] | None = None
    ) -> None:
        self.formula, self.span = formula, span
        super().__init__(message + _marked(formula, span))


class DataError(RanefError):
    """Data that cannot carry the model."""


class FitError(RanefError):
    """A fit that was asked for in a way that has no answer."""


class RanefWarning(UserWarning):
    """Base class of the warnings that ranef gives."""


class DataWarning(RanefWarning):
    """Rows or columns were left out; the message counts and names them."""


class ConvergenceWarning(RanefWarning):
    """The optimiser or the sampler did not reach an answer to rely on."""


class Convergence(Enum):
    """How an optimisation or a sampling ended. The value is the message for the user."""

    CONVERGED = "The optimiser converged."
    SINGULAR = (
        "The optimiser converged to a singular fit: the estimated covariance of a random-effects "
        "term is on the boundary of its space (a zero variance or a perfect correlation)."
    )
    LIMIT = (
        "The optimiser converged to a limit of the family: a parameter of the response "
        "distribution grows without bound, and the simpler distribution that it leads to fits as "
        "well (Poisson for an infinite shape, normal for infinite nu)."
    )
    MAX_ITERATIONS = (
        "The optimiser stopped at its limit of iterations before the gradient vanished; "
        "the estimates are not at the optimum."
    )
    STALLED = (
        "The optimiser could not improve the objective although its gradient has not vanished; "
        "the estimates may not be at the optimum. The search is the same for predictors of any "
        "scale; with fewer random effects, priors or another link it can have an end."
    )
    EXACT = (
        "The criterion falls as the residual standard deviation goes to zero: the model fits the "
        "response exactly."
    )
    ROUNDED = (
        "The residual standard deviation is so small beside the variation of the response that "
        "rounding hides the optimum."
    )
    MIXED = "The chains agree and nothing speaks against their draws."
    CHECKED = "The numbers were checked, and nothing speaks against them."
    NOT_MIXED = (
        "The draws should not be relied on as they are: the diagnostics say what is wrong and what "
        "to do."
    )

    @property
    def ok(self) -> bool:
        """Whether the numbers can be relied on."""
        return self not in (
            Convergence.MAX_ITERATIONS,
            Convergence.STALLED,
            Convergence.EXACT,
            Convergence.ROUNDED,
            Convergence.NOT_MIXED,
        )


def warn(message: str, category: type[RanefWarning]) -> None:
    """Warn at the line outside of this package that led here, however deep the call."""
    warnings.warn(message, category, skip_file_prefixes=(_PACKAGE,))


def probability(prob: object, name: str = "prob") -> float:
    """Return a probability as a number, or refuse it by its name.

    Raises
    ------
    FitError
        If it is not a number between 0 and 1.
    """
    if isinstance(prob, Real) and 0 < float(prob) < 1:
        return float(prob)
    raise FitError(f"`{name}` must lie between 0 and 1, got {in_short(prob)}.")


def in_short(value: object) -> str:
    """Return a value as Python writes it, or its type if that is longer than a line.

    Examples
    --------
    >>> in_short("a"), in_short(list(range(99)))
    ("'a'", 'a list')
    """
    text = repr(value)
    return text if len(text) <= _LINE and "\n" not in text else f"a {type(value).__name__}"


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return a sentence that offers the known names closest to a name, or lists all of them.

    Examples
    --------
    >>> suggestion("subject", ["Reaction", "Days", "Subject"])
    'Did you mean `Subject`?'
    >>> suggestion("zzz", ["x", "y"])
    'Known names: `x`, `y`.'
    """
    names = list(known)
    lowered = {candidate.lower(): candidate for candidate in reversed(names)}
    close = difflib.get_close_matches(str(name).lower(), lowered, n=3, cutoff=0.6)
    if close:
        return f"Did you mean {listed((lowered[c] for c in close), 'or')}?"
    if not names:
        return "There are none."
    shown = ", ".join(f"`{n}`" for n in names[:_MAX_NAMES])
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return f"Known names: {shown}{more}."


def listed(items: Iterable[object], last: str = "and", limit: int = 5) -> str:
    """Return items in backticks as a phrase, at most `limit` of them.

    Examples
    --------
    >>> listed(["a", "b", "c"])
    '`a`, `b` and `c`'
    >>> listed(range(9))
    '`0`, `1`, `2`, `3`, `4` and 4 more'
    """
    return phrase([f"`{item}`" for item in items], last, limit)


def phrase(words: Iterable[str], last: str = "and", limit: int = 5) -> str:
    """Return words as a list in a sentence, `a, b and c`, of which so many are said.

    Examples
    --------
    >>> phrase(["rows", "groups", "levels"])
    'rows, groups and levels'
    """
    *said, final = [*words] or [""]
    if len(said) >= limit:
        said, final = [*said, final][:limit], f"{len(said) + 1 - limit} more"
    return f"{', '.join(said)} {last} {final}" if said else final


def _marked(formula: str | None, span: tuple[int, int] | None) -> str:
    if formula is None or span is None:
        return ""
    start, stop = span
    line = "".join(c if c.isprintable() else " " for c in formula)  # carets need one line
    carets = "^" * max(1, _width(line[start:stop]))
    return f"\n    {line}\n    {' ' * _width(line[:start])}{carets}"


def _width(text: str) -> int:
    """Return the columns of a terminal that a text takes: two for a wide letter."""
    return sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text)
