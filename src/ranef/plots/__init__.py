"""Marks on axes, drawn from tidy tables.

Nothing here knows a model or a fit.
"""
