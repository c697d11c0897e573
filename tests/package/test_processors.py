"""The same words, zeros and objectives on every processor.

A BLAS rounds differently on every processor, and with every number of threads. OpenBLAS can be told
at its start which processor's kernels to use: the same fits run in processes that differ in that.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ranef as rf

DATA = Path(__file__).parents[1] / "reference" / "data"
FITS = {
    "slopes": ("sleepstudy", "Reaction ~ Days + (Days | Subject)", "reml", {}),
    "crossed": ("Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)", "ml", {}),
    "no variance": ("Dyestuff2", "Yield ~ 1 + (1 | Batch)", "reml", {}),
    "nothing varies": ("singular", "none ~ x + (x | g)", "ml", {}),
    "intercepts alone vary": ("singular", "intercept ~ x + (x | g)", "reml", {}),
    "perfectly correlated": ("singular", "tied ~ x + (x | g)", "reml", {}),
    "three on a plane": ("singular", "plane ~ x + z + (x + z | g)", "ml", {}),
    "a mode": ("sleepstudy", "Reaction ~ Days + (Days || Subject)", "map", {}),
    "counts": ("glmm_groups", "count ~ x + (1 | g) + (1 | h)", "ml", {"family": "poisson"}),
    "slopes of a gamma": ("glmm_groups", "gamma ~ x + (z + x | g)", "ml", {"family": "gamma"}),
    "binary": ("glmm_groups", "binary ~ x + z + (z | g)", "ml", {"family": "bernoulli"}),
    "binomial, no variance": (
        "glmm_singular",
        "cbind(k, trials - k) ~ x + (x | g)",
        "ml",
        {"family": "binomial"},
    ),
    "gamma, no variance": ("glmm_singular", "gamma ~ x + (x | g)", "ml", {"family": "gamma"}),
    "counts, a mode": ("glmm_groups", "nb ~ x + (x | g)", "map", {"family": "negative_binomial"}),
}
REFITS = "refits, all at once"
KERNELS = (("", 1), ("", 2), ("Haswell", 1), ("Sandybridge", 2))  # of a processor, and threads
SECONDS = 120  # that a process may take


def outcome(data: str, formula: str, method: str, options: dict[str, str]) -> dict[str, object]:
    path = DATA / f"{data}.csv"
    frame = pd.read_csv(path) if path.exists() else rf.load_dataset(data)
    fit = rf.Model(formula, frame, **options).fit(method)
    return {
        "convergence": fit.estimate.convergence.name,
        "zeros": np.flatnonzero(fit.estimate.theta == 0).tolist(),
        "objective": fit.objective,
    }


def of_refits() -> dict[str, object]:
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff2"))
    found = fit.bootstrap(200, seed=1).estimates
    zeros = np.flatnonzero(found["sd_Batch[Intercept]"] == 0)
    return {"zeros": zeros.tolist(), "objective": found["sigma"].sum()}


def outcomes() -> dict[str, object]:
    """Return how all fits end in this process, and the kernels that it uses."""
    from threadpoolctl import threadpool_info

    warnings.simplefilter("ignore", rf.RanefWarning)
    found: dict[str, object] = {name: outcome(*fit) for name, fit in FITS.items()}
    found[REFITS] = of_refits()
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return found | {"kernels": sorted({str(pool.get("architecture")) for pool in pools})}


@cache
def processes() -> dict[tuple[str, int], subprocess.Popen[str]]:
    """Start all processes, together."""
    started = {}
    for kernel, threads in KERNELS:
        settings = {"OPENBLAS_NUM_THREADS": str(threads), "OPENBLAS_CORETYPE": kernel}
        own = {name: text for name, text in os.environ.items() if name not in settings}
        started[kernel, threads] = subprocess.Popen(
            [sys.executable, __file__],
            env=own | {name: text for name, text in settings.items() if text},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    return started


@cache
def ended(kernel: str, threads: int) -> dict[str, object]:
    """Return what a process found; skip where its kernels cannot be had."""
    process = processes()[kernel, threads]
    out, err = process.communicate(timeout=SECONDS)
    if kernel and process.returncode < 0:
        pytest.skip(f"OpenBLAS with the kernels for {kernel} crashes on this processor")
    assert process.returncode == 0, err
    found = json.loads(out)
    if kernel and found["kernels"] != [kernel]:
        pytest.skip(f"the BLAS has {found['kernels']}, not the kernels for {kernel}")
    return found


@pytest.mark.parametrize("name", [*FITS, REFITS])
@pytest.mark.parametrize(("kernel", "threads"), KERNELS[1:])
def test_fits_end_alike(kernel, threads, name):
    expected, found = ended(*KERNELS[0])[name], ended(kernel, threads)[name]
    assert found["objective"] == pytest.approx(expected["objective"], rel=1e-9)
    assert found | {"objective": 0} == expected | {"objective": 0}


def test_all_fits_converge_and_some_are_singular():
    words = [ended(*KERNELS[0])[name]["convergence"] for name in FITS]
    assert set(words) == {"SINGULAR", "CONVERGED"}
    assert min(map(words.count, words)) >= 5
    assert 20 < len(ended(*KERNELS[0])[REFITS]["zeros"]) < 180


if __name__ == "__main__":
    json.dump(outcomes(), sys.stdout)
