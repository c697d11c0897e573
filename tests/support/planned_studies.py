"""The parameters that planned studies of sleep are simulated at."""

SLEEP = "Reaction ~ Days + (Days | Subject)"
STATED = {
    "beta": {"Intercept": 250, "Days": 6},
    "theta": {"Subject": {"Intercept": 25, "Days": 6}},
    "sigma": 25,
}
