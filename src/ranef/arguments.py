"""Options of fits that are counts, seeds and shares: checked in one place, in one set of words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from inspect import signature
from typing import Any, TypeGuard

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ranef.errors import FitError, RanefError, listed, suggestion


@dataclass(frozen=True)
class Sampling:
    """Settings of the no-U-turn sampler.

    Attributes
    ----------
    draws, tune, chains : int
        Draws kept of each chain, draws before these to adapt the sampler, and chains.
    seed : int or None
        The same seed gives the same draws, whatever `cores`.
    cores : int or None
        How many chains run at a time; None for as many as there are processors.
    progressbar : bool
        Whether to show progress.
    target_accept : float
        The mean acceptance probability that is aimed at. Higher means smaller steps: slower, but
        fewer divergences.

    Raises
    ------
    FitError
        If a number is out of its range.
    """

    draws: int = 1000
    tune: int = 1000
    chains: int = 4
    seed: int | None = None
    cores: int | None = None
    progressbar: bool = True
    target_accept: float = 0.9

    def __post_init__(self) -> None:
        check_counts(draws=self.draws, tune=self.tune, chains=self.chains)
        if self.cores is not None:
            check_counts(cores=self.cores)
        check_seed(self.seed)
        share: object = self.target_accept  # whatever it may really be
        if not (isinstance(share, float) and 0 < share < 1):
            raise FitError(f"`target_accept` must lie between 0 and 1, got {self.target_accept!r}.")

    def of_nutpie(self) -> dict[str, Any]:
        """Return the settings under nutpie's names."""
        return {
            "draws": self.draws,
            "tune": self.tune,
            "chains": self.chains,
            "seed": self.seed,
            "cores": self.cores,
            "target_accept": self.target_accept,
            "progress_bar": self.progressbar,
            "save_warmup": False,
        }


def check_counts(**counts: object) -> None:
    """Refuse what is not a positive whole number.

    Raises
    ------
    FitError

    Examples
    --------
    >>> check_counts(draws=0)
    Traceback (most recent call last):
    ...
    ranef.errors.FitError: `draws` must be a positive whole number, got 0.
    """
    for name, count in counts.items():
        if not _is_integer(count) or count < 1:
            raise FitError(f"`{name}` must be a positive whole number, got {count!r}.")


def check_choice(
    name: str,
    value: object,
    known: Iterable[str],
    fault: str = "does not exist",
    *,
    error: type[RanefError] = FitError,
) -> str:
    """Return one of the known choices, or refuse what is none of them.

    Raises
    ------
    FitError or another error

    Examples
    --------
    >>> check_choice("kind", "respnse", ["response", "link"], "is not a kind of prediction")
    Traceback (most recent call last):
    ...
    ranef.errors.FitError: kind='respnse' is not a kind of prediction. Did you mean `response`?
    """
    choices = list(known)
    if not isinstance(value, str) or value not in choices:
        raise error(f"{name}={value!r} {fault}. {suggestion(str(value), choices)}")
    return value


def check_positive(**numbers: object) -> None:
    """Refuse what is not a positive number that can be calculated with.

    Raises
    ------
    FitError

    Examples
    --------
    >>> check_positive(sigma=0)
    Traceback (most recent call last):
    ...
    ranef.errors.FitError: `sigma` must be a positive number, got 0.
    """
    for name, number in numbers.items():
        if (
            isinstance(number, bool)
            or not isinstance(number, int | float | np.number)
            or not 1e-100 < number < 1e100
        ):
            raise FitError(f"`{name}` must be a positive number, got {number!r}.")


def by_name(what: str, values: Any, names: Sequence[str]) -> Any:
    """Return values in the order of their names, where they have names.

    Raises
    ------
    FitError
        If the names are not those that are wanted.
    """
    if not isinstance(values, Mapping | pd.Series):
        return values
    given = dict(values.items())
    if set(given) != set(names):
        raise FitError(f"{what} is for {listed(names)}; got {listed(given) or 'none'}.")
    return [given[name] for name in names]


def check_numbers(name: str, values: ArrayLike, size: int) -> NDArray[np.float64]:
    """Return finite numbers of the right count, or refuse them.

    Raises
    ------
    FitError

    Examples
    --------
    >>> check_numbers("beta", [1, 2], 3)
    Traceback (most recent call last):
    ...
    ranef.errors.FitError: beta has shape (2,), expected (3,).
    """
    try:
        found = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise FitError(f"{name} must be numbers, got {values!r}.") from None
    if found.shape != (size,):
        raise FitError(f"{name} has shape {found.shape}, expected ({size},).")
    if not np.isfinite(found).all():
        raise FitError(f"{name} must be finite, got {found.tolist()}.")
    return found


def check_positive_numbers(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Return positive numbers, shape (any,), or refuse them.

    Raises
    ------
    FitError
    """
    found = check_numbers(name, values, np.size(np.asarray(values, dtype=object)))
    if not (found > 0).all():
        raise FitError(f"{name} must be positive, got {found.tolist()}.")
    return found


def check_seed(seed: object) -> None:
    """Refuse what is neither None nor a whole number from 0 on.

    Raises
    ------
    FitError
    """
    if seed is not None and (not _is_integer(seed) or seed < 0):
        raise FitError(f"`seed` must be None or a whole number from 0 on, got {seed!r}.")


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def option_names(method: Callable[..., object]) -> list[str]:
    """Return the names of the options of a method; those of `Sampling` for any that it passes on.

    Examples
    --------
    >>> option_names(lambda *, form, **sampling: None)[:2], option_names(lambda *, form: None)
    (['draws', 'tune'], ['form'])
    """
    parameters = signature(method).parameters.values()
    own = [one.name for one in parameters if one.kind is not one.VAR_KEYWORD]
    passes_on = len(own) < len(parameters)
    return [field.name for field in fields(Sampling)] * passes_on + own


def check_options(
    method: str, options: Iterable[str], known: Sequence[str], of_model: Sequence[str]
) -> None:
    """Refuse options that a method does not have.

    Parameters
    ----------
    method : str
    options : iterable of str
        The names that were given.
    known, of_model : sequence of str
        Options of the method, and of `Model`.

    Raises
    ------
    FitError
    """
    for option in options:
        if option not in known:
            hint = suggestion(option, [*known, *of_model])
            hint = "It is an option of Model." if option in of_model else hint
            raise FitError(f"fit({method!r}) has no option `{option}`. {hint}")
