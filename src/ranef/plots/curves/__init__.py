"""Curves over one or two numbers: power over sizes, densities, criteria, statistics."""
