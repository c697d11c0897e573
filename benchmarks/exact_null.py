"""How long draws of the exact null distribution take: `uv run benchmarks/exact_null.py`.

One variance component in n rows and J levels, 100,000 draws of the (restricted) likelihood ratio:
levels of one size (all eigenvalues equal), of many sizes, and random slopes (all different).
"""

from time import perf_counter

import numpy as np
import pandas as pd

from ranef.comparison.null_distributions import exact_null_statistics, spectrum
from ranef.design.design import build_design
from ranef.formula.terms import read_formula

DRAWS = 100_000
CASES = {
    "levels of one size": ("y ~ x + (1 | even)", 1000, 50),
    "of many sizes": ("y ~ x + (1 | odd)", 1000, 50),
    "random slopes": ("y ~ x + (0 + x | odd)", 1000, 50),
    "many levels": ("y ~ x + (0 + x | odd)", 5000, 300),
}


def main() -> None:
    rng = np.random.default_rng(1)
    print(f"{DRAWS} draws{'':22}eigenvalues     REML       ML   P(T = 0)")
    for name, (text, n, levels) in CASES.items():
        frame = pd.DataFrame({"x": rng.normal(size=n), "y": rng.normal(size=n)})
        frame["even"], frame["odd"] = np.arange(n) % levels, rng.integers(0, levels, n)
        small, large = (build_design(read_formula(f), frame) for f in ("y ~ x", text))
        times = []
        for reml in (True, False):
            start = perf_counter()
            form = spectrum(small, large, reml=reml)
            drawn = exact_null_statistics(form, DRAWS, 1)
            times.append(f"{perf_counter() - start:7.2f} s")
        what = f"{name}, n = {n}, J = {levels}"
        print(f"{what:40}{len(form.mu):4} {' '.join(times)}   {(drawn == 0).mean():.3f}")


if __name__ == "__main__":
    main()
