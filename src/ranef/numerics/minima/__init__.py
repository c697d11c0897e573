"""Minima of functions that say how they curve."""
