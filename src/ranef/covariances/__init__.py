"""The covariance of the random effects of one term: its parameters theta, factor and names.

One record a structure; a new structure is one more record here.
"""
