"""Counts so large that their rounding is seen, and exact arithmetic to hold densities against."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pandas as pd

PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")
DIGITS = 60


def frame(size, n=300, m=30):
    """Return counts and successes of `size`, with effects of groups and of rows; no chance."""
    i = np.arange(n)
    data = pd.DataFrame({"x": np.sin(1.7 * i), "g": i % m, "row": i})
    eta = 1 + 0.3 * data["x"] + 0.7 * np.sin(3.0 * data["g"] ** 2) + 0.3 * np.sin(1.3 * i**2)
    data["y"] = np.floor(size * np.exp(eta))
    data["k"], data["n"] = np.floor(size / (1 + np.exp(-eta))), size
    return data.assign(failures=data["n"] - data["k"])


def log_factorial(y):
    """Return log y! of a whole number, exactly where it is small and by Stirling's series else."""
    with localcontext(prec=DIGITS):
        if y < 2000:
            return sum((Decimal(k).ln() for k in range(2, int(y) + 1)), Decimal(0))
        y = Decimal(int(y))
        series = 1 / (12 * y) - 1 / (360 * y**3) + 1 / (1260 * y**5) - 1 / (1680 * y**7)
        return (y + Decimal("0.5")) * y.ln() - y + (2 * PI).ln() / 2 + series


def poisson(y, lam):
    """Return the log density of a count at log mean lam."""
    with localcontext(prec=DIGITS):
        lam = Decimal(float(lam))
        return float(Decimal(int(y)) * lam - lam.exp() - log_factorial(y))


def binomial(k, n, eta):
    """Return the log density of successes at log odds eta."""
    with localcontext(prec=DIGITS):
        odds, k, n = Decimal(float(eta)).exp(), Decimal(int(k)), Decimal(int(n))
        choices = log_factorial(n) - log_factorial(k) - log_factorial(n - k)
        return float(choices + k * odds.ln() - n * (1 + odds).ln())


def negative_binomial(y, lam, shape):
    """Return the log density of a count at log mean lam, for a shape that is a whole number."""
    with localcontext(prec=DIGITS):
        mu, y, k = Decimal(float(lam)).exp(), Decimal(int(y)), Decimal(int(shape))
        choices = log_factorial(y + k - 1) - log_factorial(k - 1) - log_factorial(y)
        return float(choices + y * (mu / (mu + k)).ln() + k * (k / (mu + k)).ln())
