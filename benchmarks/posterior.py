"""How long posteriors take, and what they are worth: `uv run benchmarks/posterior.py`.

Every way to the posterior of `sleepstudy` in a process of its own, from its start to the fit in
hand, imports and compilation included; medians of several runs. `--bambi PYTHON` adds bambi from an
interpreter that has it. `--large` adds data of the size of lme4's InstEval.

Effective sample sizes are the smallest bulk ESS of the parameters (fixed effects, sigma, standard
deviations, correlations) and of the random effects.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from point_estimates import report, seconds

import ranef as rf
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.posterior.linear_posterior import target_of
from ranef.posterior.sampling import density_for_nutpie
from ranef.posterior.sampling.density_arrays import pack

FORMULA = "Reaction ~ Days + (Days | Subject)"

# What a process does: `fit`, then "ready", then what the fit is worth
RANEF = """
import ranef as rf
model = rf.Model({formula!r}, rf.load_dataset("sleepstudy"))
fit = model.fit({method!r}, seed={seed}, **{options!r})
posterior = fit.posterior["posterior"].to_dataset()
print("ready", flush=True)
own = ["beta", "sigma", "sd_Subject", "corr_Subject"], ["b_Subject"]
limit = getattr(fit.diagnostics, "ess", float("inf"))  # of importance weights
"""
BAMBI = """
import logging, warnings
warnings.simplefilter("ignore")
import bambi, pandas
logging.disable()
sleep = pandas.read_csv({path!r}, dtype={{"Subject": str}})
model = bambi.Model({formula!r}, sleep)
settings = dict(draws=1000, tune=1000, chains=4, cores=2, progressbar=False) | {options!r}
fit = model.fit(random_seed={seed}, **settings)
posterior = fit["posterior"].to_dataset()
print("ready", flush=True)
own = ["Intercept", "Days", "sigma", "1|Subject_sigma", "Days|Subject_sigma"], [
    "1|Subject", "Days|Subject"
]
limit = float("inf")
"""
WORTH = """
import json, arviz, numpy
def smallest(names):
    found = arviz.ess(posterior[names], method="bulk")
    spread = posterior[names].std(("chain", "draw"))  # 0 where a correlation is one
    moving = {name: found[name].to_numpy()[spread[name].to_numpy() > 1e-9] for name in names}
    return min(float(numpy.min(values)) for values in moving.values() if values.size)
print(json.dumps([min(limit, smallest(names)) for names in own]))
"""
LARGE = """
import resource, time
import ranef as rf
from point_estimates import insteval_like
frame = insteval_like()
start = time.perf_counter()
model = rf.Model("y ~ service + (1 | s) + (1 | d) + (1 | dept)", frame)
fit = model.fit("laplace", draws=1000, seed=1)
posterior = fit.posterior["posterior"].to_dataset()
print("ready", time.perf_counter() - start, flush=True)
print(fit.summary())
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(f"peak memory {peak:.2f} GiB, effective sample size {fit.diagnostics.ess:.0f}")
"""


def measure(code: str, python: str = sys.executable, **environment: str):
    """Run code in a new process; return seconds to "ready" and the two effective sample sizes."""
    start = time.perf_counter()
    with subprocess.Popen(
        [python, "-c", code + WORTH],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("ready"):
                break
        wall = time.perf_counter() - start
        rest, errors = process.communicate()
    if process.returncode:
        raise SystemExit(errors)
    return (wall, *json.loads(rest.splitlines()[-1]))


def row(what: str, runs) -> None:
    wall, ess, ess_b = (statistics.median(column) for column in zip(*runs, strict=True))
    times = ", ".join(f"{run[0]:.1f}" for run in runs)
    print(
        f"{what:<44}{wall:8.2f} s{ess:8.0f}{ess_b:8.0f}{ess / wall:9.0f}{ess_b / wall:9.0f}"
        f"   ({times})",
        flush=True,
    )


def table(runs: int, bambi: str | None) -> None:
    print(f"\n{FORMULA}: from the start of a process to the fit, median of {runs} runs")
    print(f"{'':<44}{'wall':>10}{'ESS':>8}{'of b':>8}{'ESS/s':>9}{'of b':>9}   (each run)")
    chains = {"progressbar": False}
    ways = {
        "mcmc, 4 x (1000 + 1000)": ("mcmc", chains),
        "mcmc, form='hierarchical', 4 x (1000 + 1000)": ("mcmc", chains | {"form": "hierarchical"}),
        "laplace, 4000 draws": ("laplace", {}),
        "quadrature, 4000 draws": ("quadrature", {}),
    }

    def code(method, options, seed):
        return RANEF.format(formula=FORMULA, method=method, options=options, seed=seed)

    first = []
    for seed in range(runs):
        with tempfile.TemporaryDirectory() as empty:
            first.append(measure(code("mcmc", chains, seed), NUMBA_CACHE_DIR=empty))
    row("mcmc, the very first time: nothing compiled", first)
    for name, (method, options) in ways.items():
        measure(code(method, options, 0))  # fills the caches
        row(name, [measure(code(method, options, seed)) for seed in range(runs)])
    if bambi:
        against_bambi(bambi, runs)


def against_bambi(python: str, runs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sleepstudy.csv")
        pd.DataFrame(rf.load_dataset("sleepstudy")).to_csv(path, index=False)
        for name, options in {
            "bambi, 4 x (1000 + 1000), 2 cores": {},
            "bambi, with nutpie": {"inference_method": "nutpie"},
        }.items():
            settings = {"formula": FORMULA.replace(" ", ""), "path": str(path), "options": options}
            measure(BAMBI.format(**settings, seed=0), python)  # fills the caches
            codes = [BAMBI.format(**settings, seed=seed) for seed in range(runs)]
            row(name, [measure(own, python) for own in codes])


def warm() -> None:
    print("\nin a process that has done it before")
    model = rf.Model(FORMULA, rf.load_dataset("sleepstudy"))
    for method, options in {
        "mcmc": {"progressbar": False},
        "laplace": {},
        "quadrature": {},
    }.items():

        def fit(method=method, options=options):
            return model.fit(method, seed=1, **options).posterior

        report(f"{method}, fit and draws", seconds(fit, runs=5))
    report("quadrature, estimates and intervals", seconds(lambda: _numbers(model), runs=5))


def _numbers(model):
    fit = model.fit("quadrature")
    return fit.estimates(), fit.hdi()


def rows() -> None:
    print("\nthe density of the variance parameters does not depend on the number of rows")
    sleep = pd.DataFrame(rf.load_dataset("sleepstudy"))
    for times in (1, 100, 10_000):
        frame = pd.concat([sleep] * times, ignore_index=True)
        frame["Reaction"] += np.random.default_rng(1).normal(0, 1, len(frame))
        start = time.perf_counter()
        model = rf.Model(FORMULA, frame)
        cross = cross_products(model.design)
        target = target_of(model.design, cross, range(cross.p), model.priors)
        read = time.perf_counter() - start
        packed, in_c = pack(target), density_for_nutpie.c_posterior.ctypes
        of_c = [np.full(packed.d, 0.1), np.empty(packed.d), np.empty(1)]
        pointers = [array.ctypes.data_as(in_c.argtypes[1]) for array in of_c]
        call = partial(in_c, packed.d, *pointers, packed.in_one.ctypes.data)

        def thousand(call=call):
            for _ in range(1000):
                call()

        gradient = seconds(thousand) / 1000
        whole = seconds(lambda model=model: model.fit("mcmc", seed=1, progressbar=False), runs=3)
        print(
            f"{len(frame):>11,} rows: read and summed in {read:6.2f} s, "
            f"{gradient * 1e6:5.1f} us a gradient, mcmc in {whole:5.2f} s",
            flush=True,
        )


def large() -> None:
    print("\nInstEval-like, 73,421 rows, 2,972 + 1,128 + 14 levels: laplace, 1000 draws")
    start, folder = time.perf_counter(), Path(__file__).parent
    subprocess.run([sys.executable, "-c", LARGE], check=True, cwd=folder)
    report("wall time, imports and simulation of the data included", time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bambi", metavar="PYTHON", help="an interpreter that has bambi")
    parser.add_argument("--large", action="store_true", help="only the InstEval-like data")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    if options.large:
        large()
        return
    table(options.runs, options.bambi)
    warm()
    rows()


if __name__ == "__main__":
    main()
