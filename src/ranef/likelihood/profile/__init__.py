"""Profile likelihoods: one parameter held, the others at their optimum."""
