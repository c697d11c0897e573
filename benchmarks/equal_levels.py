"""What levels with equal designs save: `uv run benchmarks/equal_levels.py`.

Each row once with levels of one kind brought together and once with every level on its own, in
seconds of one processor; the best of several runs. `--large` takes 100,000 groups, which is a
matter of a minute for every level on its own.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

import numpy as np
import pandas as pd

import ranef as rf
from ranef.likelihood.bootstrap import rotations
from ranef.likelihood.linear import degrees_of_freedom, reml
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.likelihood.profile import search
from ranef.posterior import linear_posterior
from ranef.posterior.linear_posterior import target_of
from ranef.posterior.sampling import density_arrays, nuts

USERS = (linear_posterior, reml, search, degrees_of_freedom, density_arrays)


def groups(m: int, designs: int = 40) -> pd.DataFrame:
    """Simulate groups of five rows that have one of some designs."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(designs, 5))[rng.integers(0, designs, m)]
    y = rng.normal(size=(m, 1)) + 0.5 * rng.normal(size=(m, 1)) * x + rng.normal(size=x.shape)
    return pd.DataFrame({"g": np.repeat(np.arange(m), 5), "x": x.ravel(), "y": y.ravel()})


def lists(subjects: int = 200, items: int = 40) -> pd.DataFrame:
    """Simulate subjects by items, each item in one of two conditions by a subject's list."""
    rng = np.random.default_rng(2)
    s, i = (codes.ravel() for codes in np.mgrid[:subjects, :items])
    y = rng.normal(size=subjects)[s] + rng.normal(size=items)[i] + rng.normal(size=len(s))
    return pd.DataFrame({"s": s, "i": i, "c": (s + i) % 2, "y": y})


def classes(schools: int = 400) -> pd.DataFrame:
    """Simulate schools of two to four classes, each with one of three designs."""
    rng = np.random.default_rng(3)
    rows, c = [], 0
    for s in range(schools):
        for _ in range(rng.integers(2, 5)):
            rows += [(s, c, x) for x in ([0, 1, 2, 3], [0, 1, 1, 2, 3], [1, 2])[rng.integers(3)]]
            c += 1
    frame = pd.DataFrame(rows, columns=["s", "c", "x"])
    frame["y"] = rng.normal(size=schools)[frame["s"]] + rng.normal(size=c)[frame["c"]]
    frame["y"] += rng.normal(size=len(frame))
    return frame


@contextmanager
def every_level() -> Iterator[None]:
    """Leave all levels as they are."""
    patches = [patch.object(user, "condensed", lambda cross, **_: cross) for user in USERS]
    patches.append(patch.object(rotations, "alike", lambda products: np.arange(len(products))))
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()


def best(action: Callable[[], object], runs: int) -> float:
    """Return the least processor time of an action."""
    times = []
    for _ in range(runs):
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return min(times)


def gradients(model: rf.Model) -> Callable[[], object]:
    """Return an action that evaluates what NUTS evaluates, 10,000 times."""
    cross = cross_products(model.design)
    target = target_of(model.design, cross, range(cross.p), model.priors)
    density, x = nuts.density(target), np.full(target.space.d, 0.1)
    return lambda: [density(x) for _ in range(10_000)]


def row(what: str, prepare: Callable[[], Callable[[], object]], runs: int = 5) -> None:
    """Print both times of what is prepared."""
    prepare()()
    fewer = best(prepare(), runs)
    with every_level():
        action = prepare()
        every = best(action, min(runs, 3))
    print(f"{what:<66}{every:9.3f}{fewer:9.3f}{every / fewer:8.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true", help="100,000 groups of 40 designs")
    large = parser.parse_args().large
    print(f"{'':<66}{'every':>9}{'fewer':>9}{'ratio':>8}")
    slopes = "y ~ x + (x | g)"
    frames = groups(100_000 if large else 2_000), lists(), classes()

    def sleep() -> rf.Model:
        return rf.Model("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))

    def many() -> rf.Model:
        return rf.Model(slopes, frames[0])

    def crossed() -> rf.Model:
        return rf.Model("y ~ c + (c | s) + (c | i)", frames[1])

    def nested() -> rf.Model:
        return rf.Model("y ~ x + (x | s/c)", frames[2])

    def integrated(make: Callable[[], rf.Model]) -> object:
        return make().fit("quadrature")

    if large:
        row("100,000 groups: model and quadrature", lambda: partial(integrated, many), 1)
        row("100,000 groups: REML", lambda: many().fit, 3)
        return
    row("sleepstudy: model and quadrature", lambda: partial(integrated, sleep))
    row("sleepstudy: 10,000 gradients for NUTS", lambda: gradients(sleep()))
    row("2,000 groups: model and quadrature", lambda: partial(integrated, many), 2)
    row("2,000 groups: 10,000 gradients for NUTS", lambda: gradients(many()), 2)
    row("2,000 groups: 200 refits", lambda: lambda: many().fit().bootstrap(200, seed=1), 2)
    row("200 subjects x 40 items: profiles", lambda: lambda: crossed().fit("ml").profile(), 1)
    row("400 schools, 1,200 classes: REML", lambda: nested().fit, 3)


if __name__ == "__main__":
    main()
