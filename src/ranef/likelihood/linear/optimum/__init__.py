"""The way to the optimum of a linear model: where a search starts, and how its criterion curves."""
