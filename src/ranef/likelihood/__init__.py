"""What the data say: likelihoods with the random effects integrated out, and their maxima.

The wings: linear and generalised models, the bootstrap, profiles.
"""
