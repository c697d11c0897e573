"""Progress of long jobs: one line, on standard error or below a notebook's cell.

A job says how far it is, `with running("Profiling", 6) as step: ... step()`, or goes through its
items, `for item in tracked("Refitting", items)`. What takes longer than a moment is shown where
somebody can look: in a terminal or a notebook, by the main thread; a job inside another one stands
behind it. When all is done, the line is gone. Results do not depend on it.

Parts of a job that do not depend on each other run where the user's executor says: `mapped`.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from html import escape
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from ranef._typing import Array, Executor
from ranef.errors import FitError

DELAY = 1.0  # seconds, before which nothing is shown
BETWEEN = 0.1  # seconds between two looks
clock: Callable[[], float] = time.monotonic


class Advance(Protocol):
    """Says that some of a job is done."""

    def __call__(self, n: float = 1, doing: str | None = None) -> None:
        """Advance by n; `doing` is what comes next."""


@dataclass(eq=False)
class _Job:
    """A job that is running."""

    doing: str
    total: float | None
    done: float = 0.0

    def __str__(self) -> str:
        of = "" if self.total is None else f" of {self.total:.0f}"
        return f"{self.doing}: {self.done:.0f}{of}"


class _Terminal:
    """The last line of a terminal."""

    def write(self, line: str) -> None:
        columns = shutil.get_terminal_size().columns - 1
        sys.stderr.write(f"\r{line[:columns]:<{columns}}\r")
        sys.stderr.flush()


class _Notebook:
    """One output below the cell, which is written over."""

    def __init__(self) -> None:
        display = import_module("IPython.display").display
        self.output: Any = display({"text/html": ""}, raw=True, display_id=True)

    def write(self, line: str) -> None:
        self.output.update({"text/html": escape(line), "text/plain": line}, raw=True)


@dataclass
class _Display:
    """The jobs that are running, the outermost first, and the screen that shows them."""

    jobs: list[_Job] = field(default_factory=list)
    is_silent: bool = False
    since: float = 0.0
    looked: float = 0.0
    screen: _Terminal | _Notebook | None = None

    def begin(self, job: _Job) -> None:
        """Note a job; the first starts the clock."""
        if not self.jobs:
            self.since = clock()
        self.jobs.append(job)

    def refresh(self) -> None:
        """Show all jobs, if they have taken longer than a moment."""
        now = clock()
        if now - self.since < DELAY or (self.screen and now - self.looked < BETWEEN):
            return
        self.screen = self.screen or (_Notebook() if _is_notebook() else _Terminal())
        self.screen.write(f"{' > '.join(map(str, self.jobs))} ({now - self.since:.0f} s)")
        self.looked = now

    def end(self, job: _Job) -> None:
        """Forget a job; with the last one the line is gone."""
        self.jobs.remove(job)
        if not self.jobs and self.screen is not None:
            self.screen.write("")
            self.screen = None


_display = _Display()


@contextmanager
def running(doing: str, total: float | None = None) -> Iterator[Advance]:
    """Show that a job is running until it ends.

    Parameters
    ----------
    doing : str
        What is done: "Refitting".
    total : float, optional
        Of how many steps it consists, if that is known.

    Yields
    ------
    Advance
        To be called after each step.

    Examples
    --------
    >>> with running("Counting", 3) as step:
    ...     for _ in range(3):
    ...         step()
    """
    if not _is_seen():
        yield _nothing
        return
    job = _Job(doing, total)

    def step(n: float = 1, doing: str | None = None) -> None:
        job.done += n
        job.doing = doing or job.doing
        _display.refresh()

    _display.begin(job)
    try:
        yield step
    finally:
        _display.end(job)


def tracked[T](doing: str, items: Iterable[T], total: float | None = None) -> Iterator[T]:
    """Go through items, and show how many of them are done.

    Examples
    --------
    >>> sum(tracked("Adding", [1, 2, 3]))
    6
    """
    size = len(items) if total is None and isinstance(items, Sized) else total
    with running(doing, size) as step:
        for item in items:
            yield item
            step()


def mapped[R](
    executor: Executor | None, work: Callable[..., R], *items: Iterable[Any]
) -> Iterator[R]:
    """Return what some work gives for each of several items, in their order.

    Parameters
    ----------
    executor : concurrent.futures.Executor, optional
        Where it is done; or anything else with a `submit` or a `map`, such as an executor of loky
        or Dask, or a pool of processes. Here, one after the other, if there is none.
    work : callable
    *items : iterable
        As of `map`.

    Raises
    ------
    FitError
        If there is neither of them.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with ThreadPoolExecutor(2) as executor:
    ...     list(mapped(executor, pow, [2, 3], [3, 2]))
    [8, 9]
    """
    given: Any = executor
    if given is None:
        return map(work, *items)
    if hasattr(given, "submit"):
        return _results([given.submit(work, *each) for each in zip(*items, strict=True)])
    if hasattr(given, "map"):
        return iter(given.map(partial(_called, work), list(zip(*items, strict=True))))
    raise FitError(
        f"executor={given!r} has no `submit` and no `map`: give one of concurrent.futures, loky or "
        "Dask (client.get_executor()), or a pool of processes."
    )


def _results(futures: Sequence[Any]) -> Iterator[Any]:
    """Yield the results of futures, and cancel what is left where one fails."""
    try:
        for future in futures:
            yield future.result()
    finally:
        for future in futures:
            future.cancel()


def _called[R](work: Callable[..., R], arguments: tuple[Any, ...]) -> R:
    return work(*arguments)


@contextmanager
def counted[**P, R](doing: str, function: Callable[P, R]) -> Iterator[Callable[P, R]]:
    """Show how often a function was called, until the job that calls it ends.

    Examples
    --------
    >>> with counted("Evaluating", abs) as f:
    ...     f(-1)
    1
    """
    with running(doing) as advance:

        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            result = function(*args, **kwargs)
            advance()
            return result

        yield function if advance is _nothing else called


@contextmanager
def silent(*, when: bool = True) -> Iterator[None]:
    """Show nothing of what runs inside."""
    before = _display.is_silent
    _display.is_silent = before or when
    try:
        yield
    finally:
        _display.is_silent = before


def clear() -> None:
    """Take the line away until the next step, as before something else is printed."""
    if _display.screen is not None:
        _display.screen.write("")


def reporting(*, verbose: bool) -> Callable[[float, Array, float], None] | None:
    """Return what prints each step of an optimiser when it is taken, if that is wanted."""
    return print_step if verbose else None


def print_step(value: float, theta: Array, decrease: float) -> None:
    """Print a step of an optimiser: the objective, theta, and the decrease it predicts."""
    words = [f"{value:14.6f}", *(f"{t:.6f}" for t in (*theta, decrease) if np.isfinite(t))]
    clear()
    print("  ".join(words))  # noqa: T201 -- verbose=True


def _nothing(n: float = 1, doing: str | None = None) -> None:
    """Advance what nobody sees."""


def _is_seen() -> bool:
    """Whether anybody can look at what this thread does."""
    is_main = threading.current_thread() is threading.main_thread() and not _is_worker()
    return is_main and not _display.is_silent and (_is_notebook() or sys.stderr.isatty())


def _is_worker() -> bool:
    """Whether another process waits for this one."""
    processes = sys.modules.get("multiprocessing.process")
    return processes is not None and processes.parent_process() is not None


def _is_notebook() -> bool:
    """Whether IPython runs in the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None
