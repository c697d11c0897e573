"""Ten meta-analyses with metafor's results, and posteriors of them on a fine grid of tau."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pandas as pd
from reference_cases import REFERENCE
from scipy import integrate, optimize, stats

import ranef as rf

CASES = json.loads((REFERENCE / "metafor.json").read_text())
SCHOOLS = pd.DataFrame(
    {
        "study": list("ABCDEFGH"),
        "y": [28.0, 8, -3, 7, -1, 1, 18, 12],
        "s": [15.0, 10, 16, 11, 9, 11, 10, 18],
    }
)


@cache
def frame_of(name):
    case = CASES[name]
    data = pd.DataFrame({"y": case["yi"], "s": np.sqrt(case["vi"])})
    return data.assign(study=[f"study {i + 1}" for i in range(len(data))])


def model_of(name, formula="y ~ 1 + (1 | study)", **options):
    return rf.Model(formula, frame_of(name), se="s", **options)


class Grid:
    """The posterior under mu ~ N(m, d^2) and a half-normal tau, by integrals over tau alone."""

    def __init__(self, y, s, mean, sd, scale):
        self.y, self.s = np.asarray(y), np.asarray(s)
        self.tau = scale * np.linspace(0, 12, 4001)
        w = 1 / (self.s**2 + self.tau[:, None] ** 2)
        precision = w.sum(axis=1) + 1 / sd**2
        self.mu = (w @ self.y + mean / sd**2) / precision
        self.mu_sd = precision**-0.5
        logp = stats.norm.logpdf(self.y, mean, w**-0.5).sum(axis=1)
        # one more factor: the density of y with mu integrated out, by Bayes' theorem at mu = mean
        logp = logp + stats.norm.logpdf(mean, mean, sd)
        logp = logp - stats.norm.logpdf(mean, self.mu, self.mu_sd)
        logp += stats.halfnorm.logpdf(self.tau, scale=scale)
        top = logp.max()
        density = np.exp(logp - top)
        total = integrate.simpson(density, x=self.tau)
        self.log_evidence = float(top + np.log(total))
        self.density = density / total

    def expected(self, values):
        return integrate.simpson(self.density * values, x=self.tau)

    def tau_quantile(self, p):
        cumulative = integrate.cumulative_simpson(self.density, x=self.tau, initial=0)
        return float(np.interp(p, cumulative, self.tau))

    def quantile(self, p, means, sds):
        """Return a quantile of a mixture over tau of normal distributions."""

        def excess(x):
            return self.expected(stats.norm.cdf(x, means, sds)) - p

        reach = 15 * sds.max()
        return optimize.brentq(excess, means.min() - reach, means.max() + reach, xtol=1e-12)

    def study(self, i):
        """Return mean and sd of the effect of a study at each tau."""
        variance = self.tau**2 + self.s[i] ** 2
        share = self.tau**2 / variance
        means = share * self.y[i] + (1 - share) * self.mu
        return means, np.sqrt(share * self.s[i] ** 2 + (1 - share) ** 2 * self.mu_sd**2)
