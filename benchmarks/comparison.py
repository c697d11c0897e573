"""How long a comparison of random-effects structures takes, part by part, in CPU seconds.

    python benchmarks/comparison.py sleepstudy | Pastes | ScotsSec | Contraception

Every posterior by quadrature where it has few enough variance parameters, then what is left out by
group and by row, marginal likelihoods and their sensitivity to the priors. In R that takes a brms
fit of compilation and sampling and a bridge sampler for each structure: minutes, with a Monte Carlo
error and without new groups.
"""

import sys
import time
from collections.abc import Callable

import numpy as np

import ranef as rf
from ranef._typing import Array
from ranef.posterior.prior_sensitivity import SCALES

CASES = {
    "sleepstudy": ("Reaction ~ Days + (Days | Subject)", "gaussian", 5),
    "Pastes": ("strength ~ 1 + (1 | batch/cask)", "gaussian", 5),
    "ScotsSec": ("attain ~ verbal + sex + (verbal | primary) + (1 | second)", "gaussian", 1),
    "Contraception": ("use ~ age + urban + livch + (age | district)", "bernoulli", 1),
}


def timed[T](call: Callable[[], T]) -> tuple[float, T]:
    """Return the CPU time of a call, and what it gave."""
    start = time.process_time()
    found = call()
    return time.process_time() - start, found


def parts(model: rf.Model, labels: Array) -> list[float]:
    """Return the times of the posterior of a structure, and of each question."""
    taken, fit = timed(lambda: model.fit(model.engine.posterior_method, seed=1))
    calls = (
        lambda: fit.scores("group", labels, seed=1),
        lambda: fit.scores("observation", seed=1),
        fit.log_marginal_likelihood,
        lambda: fit.prior_sensitivity(SCALES),
    )
    return [taken, *(timed(call)[0] for call in calls)]


def main(name: str) -> None:
    """Print the times of one data set."""
    formula, family, repeats = CASES[name]
    model = rf.Model(formula, rf.load_dataset(name), family)
    factor = model.design.rows.terms[0].grouping
    labels = np.asarray(factor.levels)[factor.codes]
    small = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    rf.compare_structures(small, seed=1)  # imports
    print(f"{'structure':40} {'fit':>8} {'groups':>8} {'rows':>8} {'evidence':>8} {'scales':>8}")
    total = 0.0
    for structure, other in model.structures().items():
        best = np.min([parts(other, labels) for _ in range(repeats)], axis=0)
        total += best.sum()
        print(f"{structure:40} " + " ".join(f"{t:7.3f}s" for t in best))
    print(f"all of them: {total:.2f} s")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "sleepstudy")
