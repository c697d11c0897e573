"""How many threads linear algebra may use.

NumPy and SciPy bring a pool of BLAS threads each. On matrices of a few hundred rows the threads
cost more than they do, and where processes compete for the processors a factorisation that takes
microseconds can wait for milliseconds.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache

from threadpoolctl import ThreadpoolController

SMALL = 2000  # rows of the largest matrix that one thread factorises


def threads_for(size: int) -> AbstractContextManager[object]:
    """Return a context in which BLAS uses one thread if the largest matrix is small."""
    return _controller().limit(limits=1, user_api="blas") if size <= SMALL else nullcontext()


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()
