"""Where the estimates come from: NumPy beside the package, on the yields of six batches.

Prints tables only.
"""

import numpy as np
import pandas as pd
from scipy.optimize import minimize

import ranef as rf
from ranef.priors import Constant, Flat

data = rf.load_dataset("Dyestuff")
model = rf.Model("Yield ~ 1 + (1 | Batch)", data)
reml = model.fit()
y, Z = data["Yield"].to_numpy(float), reml.Z().toarray()
n, J = Z.shape
X = np.ones((n, 1))


def parts(sd_batch: float, sigma: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return V of the marginal model y ~ N(X beta, V), and GLS: X'V^-1 X and beta."""
    V = sd_batch**2 * Z @ Z.T + sigma**2 * np.eye(n)
    A = X.T @ np.linalg.solve(V, X)
    return V, A, np.linalg.solve(A, X.T @ np.linalg.solve(V, y))


def criterion(logs: np.ndarray) -> float:
    """Return -2 log restricted likelihood at the logarithms of the two sds."""
    V, A, beta = parts(*np.exp(logs))
    r = y - X @ beta
    log_dets = np.linalg.slogdet(V)[1] + np.linalg.slogdet(A)[1]
    return float((n - 1) * np.log(2 * np.pi) + log_dets + r @ np.linalg.solve(V, r))


# 1. The two standard deviations minimise the REML criterion; the closed form of equal sizes agrees.
found = minimize(criterion, np.log([30.0, 60.0]), tol=1e-10)
sd_batch, sigma = np.exp(found.x)
batches = data.groupby("Batch", observed=True)["Yield"]
mse, msb = batches.var().mean(), n / J * batches.mean().var()
estimates = {
    "minimised": [sd_batch, sigma, found.fun],
    "closed form": [np.sqrt((msb - mse) / (n / J)), np.sqrt(mse), np.nan],
    "ranef": [*reml.varcorr().table["sdcor"], reml.objective],
}
rows = ["sd between batches", "sd within", "REML criterion"]
print(pd.DataFrame(estimates, index=rows).round(4), end="\n\n")

# 2. Given these, generalised least squares has the fixed effect.
sd_batch, sigma = reml.varcorr().table["sdcor"]
V, A, beta = parts(sd_batch, sigma)
print(
    pd.DataFrame(
        {"GLS": [beta[0], A[0, 0] ** -0.5], "ranef": [reml.fixef().iloc[0], reml.se().iloc[0]]},
        index=["Intercept", "standard error"],
    ).round(4),
    end="\n\n",
)

# 3. The random effects four ways: best linear prediction, Henderson's equations, the package, and
# its posterior with the variances known.
blup = sd_batch**2 * Z.T @ np.linalg.solve(V, y - X @ beta)
W = np.hstack([X, Z])
precision = W.T @ W / sigma**2 + np.diag([0.0] + [sd_batch**-2.0] * J)
henderson = np.linalg.solve(precision, W.T @ y / sigma**2)[1:]
priors = {"sd_Batch": Constant(sd_batch), "sigma": Constant(sigma), "Intercept": Flat()}
posterior = model.with_priors(priors).fit("quadrature")
print(
    pd.DataFrame(
        {
            "own mean": batches.mean() - beta[0],
            "BLUP": blup,
            "mixed-model equations": henderson,
            "ranef": reml.ranef()["Batch"]["Intercept"],
            "posterior": posterior.ranef()["Batch"]["Intercept"],
        }
    ).round(4),
    end="\n\n",
)

# 4. Where the closed form is negative, the estimate is zero, and the posterior is not.
second = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff2"))
print(second.fit(), end="\n\n")
print(second.fit("quadrature").hdi())
