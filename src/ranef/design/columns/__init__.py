"""Columns of a data frame before they are coded: what their values look like."""
