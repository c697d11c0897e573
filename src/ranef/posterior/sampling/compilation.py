"""Compiled functions and where they are kept: what was compiled from other sources is not used.

Numba looks for changes in the file of a function only, stops where it may write to no place, and
where a file that it kept is damaged. Importing this module imports Numba.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import ModuleType
from typing import Any, cast

import numba
from numba.core.caching import FunctionCache
from numba.core.ccallback import CFunc
from numba.core.typing.templates import Signature


def compiled[F: Callable[..., Any]](function: F, sources: Sequence[ModuleType]) -> F:
    """Compile a function when it is first called, or read it from where it was kept.

    No fast maths: its last bits depend on the compiler.

    Parameters
    ----------
    function : callable
    sources : sequence of module
        All that it is compiled from, its own module included.
    """
    dispatcher = numba.njit(function, error_model="numpy", nogil=True)
    _keep(dispatcher, function, sources)
    return cast(F, dispatcher)


def c_function(signature: Signature, sources: Sequence[ModuleType]) -> Callable[..., CFunc]:
    """Compile a function that C calls by its address, or read it from where it was kept."""

    def made(function: Callable[..., Any]) -> CFunc:
        types = signature.args, signature.return_type
        called = CFunc(function, types, locals={}, options={"error_model": "numpy"})
        _keep(called, function, sources)
        called.compile()
        return called

    return made


def _keep(made: Any, function: Callable[..., Any], sources: Sequence[ModuleType]) -> None:
    """Let Numba keep what is made of a function, as `cache=True` does."""
    with suppress(RuntimeError, OSError):  # no place to write to: it is compiled in every process
        made._cache = _Kept(function, revision(sources))  # noqa: SLF001


def inner[F: Callable[..., Any]](function: F) -> F:
    """Compile a function that compiled functions call, which are kept with it."""
    return cast(F, numba.njit(function, error_model="numpy"))


def revision(sources: Sequence[ModuleType]) -> int:
    """Return a number that changes with the text of modules."""
    number = 0
    for module in sources:
        loader: Any = module.__spec__ and module.__spec__.loader
        number = zlib.crc32(loader.get_data(module.__file__), number)
    return number


_FunctionCache: Any = FunctionCache  # which has no types


class _Kept(_FunctionCache):  # type: ignore[misc]
    """The files of a compiled function, which are of use for one revision of its sources."""

    def __init__(self, function: Callable[..., Any], number: int) -> None:
        super().__init__(function)
        self._revision = number

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return (*super()._index_key(sig, codegen), self._revision)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled function, or None: also where the files are damaged."""
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # noqa: BLE001 -- whatever a damaged pickle raises
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the compiled function, where there is room for it."""
        with suppress(OSError):
            super().save_overload(sig, data)
