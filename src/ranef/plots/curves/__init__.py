"""Curves over one or two numbers (power, densities, criteria, statistics); patterns of matrices."""
