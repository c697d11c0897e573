"""A page on which the variance parameters of a fit are moved by hand: the shrinkage explorer."""
