"""Sums over rows by level and by pairs of levels: of rows, or as an engine has added them up."""
