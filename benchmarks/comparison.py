"""How long a comparison of random-effects structures takes, part by part.

The four structures of sleepstudy: every posterior by quadrature, then what is left out by row and
by group, marginal likelihoods and their sensitivity to the priors. In R that takes four brms fits
of compilation and sampling and a bridge sampler for each: minutes, with a Monte Carlo error and
without new groups.
"""

import time
from collections.abc import Callable

import numpy as np

import ranef as rf
from ranef.posterior.prior_sensitivity import SCALES

P = rf.priors
TAU = P.HalfStudentT(3, 59.3)
PRIORS = {
    "Intercept": P.Normal(250, 100),
    "Days": P.Normal(0, 20),
    "sigma": TAU,
    "sd": TAU,
    "corr": P.LKJ(2),
}
REPEATS = 5


def median_time[T](call: Callable[[], T]) -> tuple[float, T]:
    """Return the median time of some calls, and what the last one gave."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        found = call()
        times.append(time.perf_counter() - start)
    return float(np.median(times)), found


def main() -> None:
    """Print the times."""
    sleep = rf.load_dataset("sleepstudy")
    model = rf.Model("Reaction ~ Days + (Days | Subject)", sleep, priors=PRIORS)
    rf.compare_structures(model, seed=1, progressbar=False)  # imports
    labels = sleep["Subject"].to_numpy()
    total, _ = median_time(lambda: rf.compare_structures(model, seed=1, progressbar=False))
    print(f"{'structure':20} {'fit':>8} {'groups':>8} {'rows':>8} {'evidence':>9} {'scales':>8}")
    for name, other in model.structures().items():
        fit_time, fit = median_time(lambda other=other: other.fit("quadrature", seed=1))
        parts = [
            lambda fit=fit: fit.scores("group", labels),
            lambda fit=fit: fit.scores("observation"),
            fit.log_marginal_likelihood,
            lambda fit=fit: fit.prior_sensitivity(SCALES),
        ]
        times = [fit_time, *(median_time(part)[0] for part in parts)]
        print(f"{name:20} " + " ".join(f"{t:7.3f}s" for t in times))
    print(f"all four, compared: {total:.2f} s")


if __name__ == "__main__":
    main()
