"""The compiled density as nutpie calls it, without Python between: chains share the processors.

Importing this module imports Numba.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.np.numpy_support import carray

from ranef._typing import Array
from ranef.posterior.sampling import compiled_density
from ranef.posterior.sampling.compilation import c_function
from ranef.posterior.sampling.compiled_density import posterior
from ranef.posterior.sampling.density_arrays import Packed

SOURCES = (sys.modules[__name__], *compiled_density.SOURCES)
NOT_FINITE = 3  # what nutpie is told where the density is zero: the trajectory ends there

_Size, _Pointer = types.uint64, types.CPointer(types.double)  # type: ignore[no-untyped-call]


@c_function(types.int64(_Size, _Pointer, _Pointer, _Pointer, types.voidptr), SOURCES)
def c_posterior(d: int, x: Any, gradient: Any, logp: Any, data: Any) -> int:
    """Write the log posterior density and its gradient; return zero, or what is wrong with them."""
    header, slopes = carray(data, (2,), np.int64), carray(gradient, (d,))
    n_counts: Any = header[0]
    whole = carray(data, (2 + n_counts + header[1],), np.int64)[2:]
    numbers = whole[n_counts:].view(np.float64)
    value = posterior(carray(x, (d,)), whole[:n_counts], numbers, slopes)
    carray(logp, (1,))[0] = value
    return 0 if np.isfinite(value) and np.isfinite(slopes).all() else NOT_FINITE


@c_function(types.int64(_Size, _Size, _Pointer, _Pointer, types.voidptr), SOURCES)
def c_copy(d: int, _n: int, x: Any, drawn: Any, _data: Any) -> int:
    """Write what is kept of a draw: all of it."""
    carray(drawn, (d,))[:] = carray(x, (d,))
    return 0


def density(packed: Packed) -> Callable[[Array], tuple[float, Array]]:
    """Return the log posterior density with its gradient, as a function of Python."""
    data, in_c = packed.in_one, c_posterior.ctypes
    doubles: Any = in_c.argtypes[1]

    def called(x: Array) -> tuple[float, Array]:
        gradient, value = np.empty(packed.d), np.empty(1)
        pointers = (a.ctypes.data_as(doubles) for a in (x, gradient, value))
        code = in_c(packed.d, *pointers, data.ctypes.data)
        return float(value[0] if code == 0 else -np.inf), gradient

    return called


def nutpie_model(packed: Packed, starts: Callable[[int], Array]) -> Any:
    """Return a model of nutpie with one variable, `x`.

    Parameters
    ----------
    packed : Packed
    starts : callable
        From a seed to the start of a chain, shape (d,).
    """
    from nutpie.compile_pymc import CompiledPyMCModel

    d = packed.d
    return CompiledPyMCModel(
        dims={},
        compiled_logp_func=c_posterior,
        compiled_expand_func=c_copy,
        initial_point_func=starts,
        shared_data={},
        shared_var_keys={},
        user_data=packed.in_one,
        n_expanded=d,
        shape_info=(["x"], [slice(0, d)], [(d,)]),
        logp_func=None,
        expand_func=None,
        _n_dim=d,
        _shapes={"x": (d,)},
        _coords={},
    )
