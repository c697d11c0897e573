"""How long fits of large crossed factors take: `uv run benchmarks/crossed.py [grades]`.

Formula to REML fit, each in a process of its own, with the largest memory that it took. The grade
points are simulated: as many rows, students, instructors and departments as in a university's
register (1,685,394 rows; 54,711 + 7,882 + 102 levels). They take two gigabytes, and run if asked.
"""

import resource
import subprocess
import sys
import time

import numpy as np
import pandas as pd
from point_estimates import insteval_like

import ranef as rf


def grades() -> pd.DataFrame:
    """Simulate grade points: students choose courses, a third of them in their own department."""
    rng = np.random.default_rng(2008)
    students, instructors, depts, n = 54_711, 7_915, 102, 1_685_394
    dept_of = rng.choice(depts, instructors, p=rng.dirichlet(np.full(depts, 0.8)))
    dept_of[:depts] = np.arange(depts)
    staff = [np.flatnonzero(dept_of == dept) for dept in range(depts)]
    share = np.bincount(dept_of) / instructors
    major = rng.choice(depts, students, p=share)
    activity = rng.gamma(4, 1, students)
    student = rng.choice(students, n, p=activity / activity.sum())
    student[:students] = np.arange(students)
    is_own = rng.random(n) < 0.35
    dept = np.where(is_own, major[student], rng.choice(depts, n, p=share))
    popularity = [rng.dirichlet(np.ones(len(members))) for members in staff]
    instructor = np.empty(n, dtype=int)
    for k in range(depts):
        here = dept == k
        instructor[here] = rng.choice(staff[k], here.sum(), p=popularity[k])
    y = 3.2 + rng.normal(0, 0.555, students)[student]
    y = y + rng.normal(0, 0.282, instructors)[instructor] + rng.normal(0, 0.301, depts)[dept]
    y += rng.normal(0, 0.635, n)
    return pd.DataFrame({"y": y.round(3), "id": student, "instr": instructor, "dept": dept})


def two_factors(first: int, second: int, n: int) -> pd.DataFrame:
    """Simulate two crossed factors, of which `a` is text."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, first, n), rng.integers(0, second, n)
    y = rng.normal(size=n) + rng.normal(size=first)[a] + rng.normal(size=second)[b]
    return pd.DataFrame({"y": y, "a": a.astype(str), "b": b})


CASES = {
    "ratings": (insteval_like, "y ~ service + (1 | s) + (1 | d) + (1 | dept)"),
    "slopes": (insteval_like, "y ~ service + (service | s) + (service | d) + (1 | dept)"),
    "square": (lambda: two_factors(5_000, 5_000, 100_000), "y ~ 1 + (1 | a) + (1 | b)"),
    "levels": (lambda: two_factors(1_500, 2_000, 20_000), "y ~ a + (1 | b)"),
    "grades": (grades, "y ~ 1 + (1 | id) + (1 | instr) + (1 | dept)"),
}


def run(name: str) -> None:
    """Fit one case and print a row of the table."""
    make, formula = CASES[name]
    frame = make()
    rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    wall, cpu = time.perf_counter(), time.process_time()
    fit = rf.fit(formula, frame)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    cost = f"{wall:8.2f} s {cpu:8.2f} s {peak:6.2f} GB {fit.estimate.evaluations:4d}"
    print(f"{formula:<62}{cost} {fit.objective:18.6f}", flush=True)


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] == "--one":
        return run(sys.argv[2])
    print(f"{'':<62}{'wall':>10}{'CPU':>11}{'peak':>10}{'evals':>6}{'REML':>18}")
    for name in CASES:
        if name != "grades" or "grades" in sys.argv[1:]:
            subprocess.run([sys.executable, __file__, "--one", name], check=True)
    return None


if __name__ == "__main__":
    main()
