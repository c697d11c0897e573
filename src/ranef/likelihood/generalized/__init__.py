"""Generalised linear mixed models: conditional modes, Laplace and Gauss-Hermite, ML."""
