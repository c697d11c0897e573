"""Memory: how much is free, refusal of what will not fit, and what need not be carried along."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from ranef.errors import FitError, RanefError

BYTES = 8  # of a number
ALWAYS_FREE = 2**20  # bytes, for which nobody needs to be asked
LARGEST_KEPT = 4_190_000  # numbers: just below 32 MB, beyond which the C library does not learn
_GROUP = "/sys/fs/cgroup"


class WithoutCaches:
    """A record that leaves behind what it has computed of its fields where it is copied or sent."""

    def __getstate__(self) -> dict[str, Any]:
        record: Any = self
        return {field.name: getattr(self, field.name) for field in fields(record)}


def check_memory(
    elements: float, what: str, remedy: str, *, error: type[RanefError] = FitError
) -> None:
    """Refuse arrays that are larger than the memory that is free.

    Parameters
    ----------
    elements : float
        How many numbers there will be at least at one time.
    what : str
        What needs them, as the subject of a sentence.
    remedy : str
        The way out, as a sentence.
    error : type of RanefError

    Raises
    ------
    FitError or another error

    Examples
    --------
    >>> check_memory(1e15, "a table of everything", "Take a part of it.")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ranef.errors.FitError: a table of everything needs 8,000,000 GB ... free. Take a part of it.
    """
    needed = BYTES * elements
    if needed > ALWAYS_FREE and needed > (free := available()):
        message = f"{what} needs {_in_words(needed)} of memory, and {_in_words(free)} are free."
        raise error(f"{message} {remedy}")


@contextlib.contextmanager
def within_memory(what: str, remedy: str) -> Iterator[None]:
    """Turn the error of memory that has run out into one that says what needed it.

    Raises
    ------
    FitError
    """
    try:
        yield
    except MemoryError as error:
        raise FitError(f"{what} has run out of memory ({error}). {remedy}") from error


def keep_freed_memory() -> None:
    """Have the process keep memory that arrays free, to some 64 MB, for the arrays that follow.

    By default the GNU C library gives all arrays from 128 kB on back to the system at once, and the
    system then fills every page of the next one with zeros, which takes several times as long as
    computing it. From a large array that is freed it learns to keep what smaller ones free. The
    array here is never written to, and so takes no memory itself; elsewhere this does nothing.
    """
    with contextlib.suppress(MemoryError):
        np.empty(LARGEST_KEPT)


def available() -> float:
    """Return the bytes that this process can still take; infinite where nobody says."""
    return max(0.0, min(_of_machine(), _of_group(), _of_process()))


def _of_machine() -> float:
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return 1024.0 * float(line.split()[1])
    return float("inf")


def _of_group() -> float:
    """Return what a container leaves: its limit without what cannot be given back."""
    limit = next(iter(_lines(f"{_GROUP}/memory.max")), "max")
    if not limit.isdecimal():
        return float("inf")
    used = (line.split() for line in _lines(f"{_GROUP}/memory.stat"))
    return float(limit) - sum(float(n) for name, n in used if name in ("anon", "kernel"))


def _of_process() -> float:
    """Return what the limit of this process on its address space leaves."""
    try:
        import resource
    except ImportError:  # Windows has none
        return float("inf")
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    pages = next(iter(_lines("/proc/self/statm")), "")
    if limit == resource.RLIM_INFINITY or not pages:
        return float("inf")
    return float(limit) - float(pages.split()[0]) * resource.getpagesize()


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def _in_words(n: float) -> str:
    if n < 1e9:
        return f"{n / 1e6:.1f} MB"
    return f"{n / 1e9:,.0f} GB" if n >= 1e10 else f"{n / 1e9:.1f} GB"
