"""Chapters of numerical analysis: matrices, minimisation, importance and bridge sampling.

Nothing here knows a statistical model.
"""
