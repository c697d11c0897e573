"""One thread for small matrices, all of them for large ones."""

from __future__ import annotations

from threadpoolctl import threadpool_info, threadpool_limits

from ranef.numerics.threads import SMALL, threads_for


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_small_matrices_use_one_thread_and_large_ones_what_there_was():
    with threadpool_limits(2, "blas"):
        before = blas_threads()
        with threads_for(SMALL):
            assert set(blas_threads()) == {1}
        assert blas_threads() == before
        with threads_for(SMALL + 1):
            assert blas_threads() == before
        assert blas_threads() == before
