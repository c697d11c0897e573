"""Checks of arguments that many methods take: counts, seeds, numbers, choices and options."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import wraps
from inspect import isfunction, signature
from itertools import chain
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ranef._typing import Array, Seed
from ranef.errors import FitError, RanefError, in_short, listed, suggestion


@dataclass(frozen=True)
class Sampling:
    """Settings of the no-U-turn sampler.

    Attributes
    ----------
    draws, tune, chains : int
        Draws kept of each chain, draws before these to adapt the sampler, and chains.
    seed : int or None
        Made of what `check_seed` takes. The same seed gives the same draws, whatever `cores`.
    cores : int or None
        The number of chains that run at a time; None for as many as there are processors.
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
        object.__setattr__(self, "seed", check_seed(self.seed))
        target: object = self.target_accept  # whatever it may really be
        if not (isinstance(target, float) and 0 < target < 1):
            raise FitError(f"`target_accept` must lie between 0 and 1, got {target!r}.")

    def of_nutpie(self) -> dict[str, Any]:
        """Return the settings under nutpie's names."""
        settings = asdict(self)
        settings["progress_bar"] = settings.pop("progressbar")
        return settings | {"save_warmup": False}


def check_counts(**counts: object) -> None:
    """Refuse counts that are not positive whole numbers.

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
            raise FitError(f"`{name}` must be a positive whole number, got {in_short(count)}.")


def check_choice(
    name: str,
    value: object,
    choices: Iterable[str],
    fault: str = "does not exist",
    *,
    error: type[RanefError] = FitError,
) -> str:
    """Return a value that is one of some names; refuse any other.

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
    names = list(choices)
    if not isinstance(value, str) or value not in names:
        raise error(f"{name}={in_short(value)} {fault}. {suggestion(str(value), names)}")
    return value


def is_one_of(value: object, names: Iterable[str]) -> bool:
    """Whether a value, whatever it may really be, is one of some names."""
    return isinstance(value, str) and value in names


def check_known(
    names: Iterable[Any],
    known: Iterable[object],
    fault: Callable[[Any], str],
    *,
    error: type[RanefError] = FitError,
) -> None:
    """Refuse the first of some names that is not among those that are known.

    Parameters
    ----------
    names : iterable
    known : iterable
    fault : callable
        What is said of a name that is not known: a sentence.
    error : type
        The error that is raised; the sentence is followed by the names that come near.

    Examples
    --------
    >>> check_known(["a", "b"], ["a", "bc"], lambda name: f"there is no {name!r}.")
    Traceback (most recent call last):
    ranef.errors.FitError: there is no 'b'. Did you mean `bc`?
    """
    there = dict.fromkeys(known)
    for name in names:
        if not isinstance(name, Hashable) or name not in there:
            raise error(f"{fault(name)} {suggestion(str(name), map(str, there))}")


def check_positive(**numbers: object) -> None:
    """Refuse numbers that are not positive, or too small or large to calculate with.

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
            raise FitError(f"`{name}` must be a positive number, got {in_short(number)}.")


def by_name(what: str, values: Any, names: Sequence[str]) -> Any:
    """Return values in the order of their names, where they have names.

    Raises
    ------
    FitError
        If values are missing, or have other names.
    """
    if not isinstance(values, Mapping | pd.Series):
        return values
    named = dict(values.items())
    if set(named) != set(names):
        raise FitError(f"{what} is for {listed(names)}; got {listed(named) or 'none'}.")
    return [named[name] for name in names]


def check_numbers(name: str, values: ArrayLike, size: int) -> Array:
    """Return finite numbers, shape (size,), or refuse them.

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
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise FitError(f"{name} must be numbers, got {in_short(values)}.") from None
    if numbers.shape != (size,):
        raise FitError(f"{name} has shape {numbers.shape}, expected ({size},).")
    if not np.isfinite(numbers).all():
        raise FitError(f"{name} must be finite, got {numbers.tolist()}.")
    return numbers


def check_positive_numbers(name: str, values: ArrayLike) -> Array:
    """Return positive numbers, shape (any,), or refuse them.

    Raises
    ------
    FitError
    """
    numbers = check_numbers(name, values, np.size(np.asarray(values, dtype=object)))
    if not (numbers > 0).all():
        raise FitError(f"{name} must be positive, got {numbers.tolist()}.")
    return numbers


def check_seed(seed: Seed) -> int | None:
    """Return a seed as a whole number: itself, or one that is drawn of a NumPy Generator.

    A fit keeps this number, which makes the same draws again although the Generator has moved on.

    Parameters
    ----------
    seed : int, Generator, SeedSequence, BitGenerator or None
        A Generator gives another number each time, a SeedSequence the same.

    Raises
    ------
    FitError

    Examples
    --------
    >>> check_seed(7), check_seed(np.random.default_rng(1)) == check_seed(np.random.default_rng(1))
    (7, True)
    """
    if isinstance(seed, np.random.Generator | np.random.SeedSequence | np.random.BitGenerator):
        return int(np.random.default_rng(seed).integers(2**63))
    if seed is not None and (not _is_integer(seed) or seed < 0):
        raise FitError(
            "`seed` must be None, a whole number from 0 on or a numpy Generator, got "
            f"{in_short(seed)}."
        )
    return None if seed is None else int(seed)


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def option_names(method: Callable[..., object]) -> list[str]:
    """Return the names of the options of a method, with the ones of `Sampling` if it passes any on.

    Examples
    --------
    >>> option_names(lambda *, form, **sampling: None)[:2], option_names(lambda *, form: None)
    (['draws', 'tune'], ['form'])
    """
    parameters = signature(method).parameters.values()
    names = [option.name for option in parameters if option.kind is not option.VAR_KEYWORD]
    passes_on = len(names) < len(parameters)
    return [field.name for field in fields(Sampling)] * passes_on + names


_NO_OPTIMISER = "There is nothing to set: the search ends at rounding, see `fit.convergence`."
_IN_FORMULA = "Random effects stand in the formula, as `y ~ x + (x | g)`."
_WITHOUT_EFFECTS = 'Random effects are left out by groups="population", and chosen by terms=.'
_OF_FIT = {  # options of other packages, when a model is made or fitted
    **dict.fromkeys(("random", "groups", "re_formula", "vc_formula"), _IN_FORMULA),
    "reml": 'It is the method, "reml" or "ml".',
    **dict.fromkeys(("control", "optimizer", "start", "maxiter"), _NO_OPTIMISER),
    **dict.fromkeys(("iter", "warmup"), "It is `draws` and `tune`, which do not count each other."),
}
_OF_ANSWERS = {  # and when a fit is asked
    **dict.fromkeys(("re_form", "re_formula", "include_group_specific"), _WITHOUT_EFFECTS),
    **dict.fromkeys(("allow_new_levels", "sample_new_groups"), 'It is groups="new".'),
    **dict.fromkeys(("condvar", "postvar"), "`fit.ranef_table()` has their standard deviations."),
    "new_data": 'New rows are given to predict(), for draws with kind="observation", draws=True.',
    **dict.fromkeys(("se_fit", "ci_fit"), "prob=0.95 gives standard errors and intervals."),
    "refit": "REML fits with other fixed effects are fitted by ML for it, without being asked.",
}
_ALIKE = (  # names for the same, of which a function has one at most
    ("n", "nsim", "nboot", "reps", "ndraws", "num_draws", "n_samples", "samples"),
    ("prob", "level", "alpha", "conf_level", "ci_level", "ci_prob", "hdi_prob", "cred", "ci"),
    ("variables", "variable", "specs", "var", "wrt"),
    ("kind", "type", "scale"),
    ("new_data", "data", "grid", "dataset"),
    ("at", "newdata", "grid"),
    ("df", "ddf", "vcov", "lmer_df", "dof"),
    ("by", "condition", "group_by"),
    ("mu", "mean", "loc"),
    ("sigma", "sd", "std", "scale"),
)


def check_options(
    what: str, options: Iterable[str], known: Sequence[str], of_model: Sequence[str] | None = None
) -> None:
    """Refuse options that a method or function does not have.

    Parameters
    ----------
    what : str
        The call.
    options : iterable of str
        The names that a user wrote.
    known : sequence of str
        Those that it has.
    of_model : sequence of str, optional
        Options of `Model`, where a model is made or fitted.

    Raises
    ------
    FitError

    Examples
    --------
    >>> check_options("simulate()", ["nsim"], ["n", "seed"])
    Traceback (most recent call last):
    ...
    ranef.errors.FitError: simulate() has no option `nsim`. It is `n`.
    """
    for option in options:
        if option not in known:
            theirs = option.lower()
            alike = chain.from_iterable(names for names in _ALIKE if theirs in names)
            ours = next((name for name in alike if name in known), "")
            others = [name for name in of_model or () if len(name) > 2]  # `se` is like any `seed`
            hint = f"It is `{ours}`." if ours else suggestion(option, [*known, *others])
            hint = "It is an option of Model." if option in (of_model or ()) else hint
            elsewhere = _OF_ANSWERS if of_model is None else _OF_FIT
            raise FitError(f"{what} has no option `{option}`. {elsewhere.get(theirs, hint)}")


def in_words[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Return a function that refuses options by `check_options`, and not by Python's TypeError."""

    @wraps(function)
    def called(*args: P.args, **options: P.kwargs) -> R:
        try:
            return function(*args, **options)
        except TypeError as error:
            refused = error
        parameters = signature(function).parameters
        if not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
            name = function.__qualname__.removesuffix(".__init__").split(".")[-1]
            known = [one for one in parameters if one != "self"]
            check_options(f"{name}()", options, known, () if name == "Model" else None)
        raise refused

    return called


def answering(kind: type) -> None:
    """Let a class and its public methods refuse options by `check_options`, inherited ones too."""
    for owner in kind.__mro__:
        for name, method in list(owner.__dict__.items()):
            is_public = name == "__init__" or not name.startswith("_")
            is_ours = isfunction(method) and method.__module__.startswith("ranef.")
            if is_public and is_ours and not hasattr(method, "__wrapped__"):
                type.__setattr__(owner, name, in_words(method))


def file_path(path: object) -> Path:
    """Return the path of a file, `~` being the user's folder, or refuse what is none.

    Raises
    ------
    FitError

    Examples
    --------
    >>> file_path(3)
    Traceback (most recent call last):
    ...
    ranef.errors.FitError: a file is given by its path, such as "fit.zip", got 3.
    """
    if isinstance(path, str) or (isinstance(path, PathLike) and isinstance(fspath(path), str)):
        return Path(path).expanduser()
    raise FitError(f'a file is given by its path, such as "fit.zip", got {in_short(path)}.')
