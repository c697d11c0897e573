"""Marks of plots that show every group, with names that cover nothing."""
