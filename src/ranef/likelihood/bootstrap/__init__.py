"""The parametric bootstrap: simulated responses and refits of many of them together."""
