"""How often a linear model is evaluated to be fitted: `uv run benchmarks/evaluations.py [BEFORE]`.

For all linear cases of `tests/reference`: calls of `factorize` in one search from one start, and
in the whole estimate, which with few rows has several starts, and CPU milliseconds of the latter.
With the `src` folder of another version, its figures stand beside these, with how much lower its
criterion is.
"""

import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))


def measured() -> dict[str, dict[str, float]]:
    """Return the figures of every case by this process's version."""
    import reference_cases as reference

    import ranef as rf
    from ranef.likelihood.linear import blocked_cholesky, reml

    calls = 0
    factorize = blocked_cholesky.factorize

    def counted(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        return factorize(*arguments)

    blocked_cholesky.factorize = counted
    figures = {}
    for case in [*reference.read_cases("lme4.json"), *reference.read_cases("lme4_more.json")]:
        model = rf.Model(
            reference.python_formula(case),
            reference.read_frame(case),
            weights=case.get("weights"),
            offset=case.get("offset"),
        )
        cross, times = model.engine.data.cross, []
        for _ in range(3):
            calls, start = 0, time.process_time()
            estimate = reml.estimate(cross, reml=case["REML"])
            times.append(time.process_time() - start)
        figures[case["id"]] = {
            "rows": cross.n,
            "theta": len(estimate.theta),
            "search": estimate.evaluations,
            "all": calls,
            "ms": 1e3 * min(times),
            "criterion": estimate.objective,
        }
    return figures


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    if sys.argv[1:] == ["--figures"]:
        print(json.dumps(measured()))
        return
    versions = [ROOT / "src", *map(Path, sys.argv[1:])]
    tables = []
    for source in versions:
        environment = {**os.environ, "PYTHONPATH": str(source), "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "--figures"]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        tables.append(json.loads(done.stdout))
    heads = "".join(f"{'search':>9}{'all':>6}{'ms':>8}" for _ in tables)
    print(f"{'case':<34}{'rows':>6}{'theta':>6}{heads}{'lower' if tables[1:] else '':>10}")
    for case, here in tables[0].items():
        line = f"{case:<34}{here['rows']:6}{here['theta']:6}"
        for table in tables:
            figures = table[case]
            line += f"{figures['search']:9}{figures['all']:6}{figures['ms']:8.1f}"
        for table in tables[1:]:
            line += f"{here['criterion'] - table[case]['criterion']:10.1e}"
        print(line)
    for name in ("search", "all", "ms"):
        values = [[figures[name] for figures in table.values()] for table in tables]
        words = [
            f"{sum(v):.0f} (median {np.median(v):.0f}, 90 % {np.quantile(v, 0.9):.0f}, "
            f"most {max(v):.0f})"
            for v in values
        ]
        print(f"{name}: {'; before '.join(words)}")


if __name__ == "__main__":
    main()
