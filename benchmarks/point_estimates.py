"""How long point estimates take: `uv run benchmarks/point_estimates.py`.

Medians of several runs. The InstEval-like data are simulated: as many rows, students, lecturers
and departments as lme4's InstEval (73,421 ratings; 2,972 + 1,128 + 14 levels, crossed).
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pandas as pd

import ranef as rf

START = "import ranef as rf"
REML = """
sleep = rf.load_dataset("sleepstudy")
rf.fit("Reaction ~ Days + (Days | Subject)", sleep)
"""


def seconds(action: Callable[[], object], runs: int = 7) -> float:
    """Return the median wall time of an action, after one run to warm up."""
    action()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def fresh(code: str) -> Callable[[], object]:
    """Return an action that runs code in a new process."""
    return lambda: subprocess.run([sys.executable, "-c", code], check=True)


def insteval_like(n: int = 73_421, students: int = 2972, lecturers: int = 1128, depts: int = 14):
    """Simulate ratings of lecturers by students, most of them in the lecturer's department."""
    rng = np.random.default_rng(1)
    s, d = rng.integers(0, students, n), rng.integers(0, lecturers, n)
    home = rng.integers(0, depts, lecturers)[d]
    dept = np.where(rng.random(n) < 0.8, home, rng.integers(0, depts, n))
    service = rng.integers(0, 2, n)
    y = 3.3 - 0.07 * service + 1.18 * rng.normal(size=n)
    y += 0.32 * rng.normal(size=students)[s] + 0.51 * rng.normal(size=lecturers)[d]
    y += 0.1 * rng.normal(size=depts)[dept]
    return pd.DataFrame({"y": y, "s": s, "d": d, "dept": dept, "service": service})


def report(what: str, time_taken: float) -> None:
    unit, factor = ("ms", 1e3) if time_taken < 1 else ("s ", 1.0)
    print(f"{what:<64}{time_taken * factor:8.1f} {unit}")


def main() -> None:
    floor = seconds(fresh("pass"))
    report("a Python process that does nothing", floor)
    report("import ranef, fresh process", seconds(fresh(START)))
    report("import ranef and REML of sleepstudy, fresh process", seconds(fresh(START + REML)))
    for name, formula in {
        "Dyestuff": "Yield ~ 1 + (1 | Batch)",
        "sleepstudy": "Reaction ~ Days + (Days | Subject)",
        "Penicillin": "diameter ~ 1 + (1 | plate) + (1 | sample)",
        "Pastes": "strength ~ 1 + (1 | batch/cask)",
        "ScotsSec": "attain ~ verbal + sex + (1 | primary) + (verbal | second)",
    }.items():
        model = rf.Model(formula, rf.load_dataset(name))
        report(f"REML refit, {name}: {formula}"[:63], seconds(model.fit))
    frame = insteval_like()
    formula = "y ~ service + (1 | s) + (1 | d) + (1 | dept)"
    start = time.perf_counter()
    fit = rf.Model(formula, frame).fit()
    report("InstEval-like, formula to REML fit", time.perf_counter() - start)
    print(f"  {fit.estimate.evaluations} evaluations, {fit.convergence.name.lower()}")


if __name__ == "__main__":
    main()
