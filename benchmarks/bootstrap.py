"""How long the parametric bootstrap takes: `uv run benchmarks/bootstrap.py`.

Refits of sleepstudy in one process, for each structure of random effects, and likelihood-ratio
statistics of Pastes, for which two models are fitted to each response. A refit takes lme4's
`bootMer` 6.4 ms on the machine for which the README gives times.
"""

import argparse
import time

from point_estimates import report

import ranef as rf
from ranef.likelihood.bootstrap.bootstrap import null_statistics

LME4 = 6.4e-3  # seconds a refit of sleepstudy with correlated slopes
SLEEP = "(Days | Subject)", "(Days || Subject)", "(1 | Subject)"
PASTES = "strength ~ 1 + (1 | sample)", "strength ~ 1 + (1 | batch) + (1 | sample)"


def once(action):
    """Return the wall and the processor time of an action, in seconds."""
    start = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--n", type=int, default=10_000, help="number of replicates")
    n = parser.parse_args().n
    sleep, pastes = rf.load_dataset("sleepstudy"), rf.load_dataset("Pastes")
    for random in SLEEP:
        fit = rf.fit(f"Reaction ~ Days + {random}", sleep)
        fit.bootstrap(2, seed=1)  # everything is imported
        wall, cpu = once(lambda fit=fit: fit.bootstrap(n, seed=1))
        report(f"{n} REML refits, sleepstudy: {random}; processor {cpu:.1f} s", wall)
    report(f"{n} REML refits, sleepstudy: {SLEEP[0]}, lme4", LME4 * n)
    small, large = (rf.fit(formula, pastes, "ml") for formula in PASTES)
    wall, cpu = once(lambda: null_statistics(small.fitted_model, large.design, n // 5, seed=1))
    report(f"{n // 5} statistics, Pastes: variance of batches; processor {cpu:.1f} s", wall)


if __name__ == "__main__":
    main()
