"""The posterior density of the variance parameters, and what is computed from it.

The wings integrate it: on a lattice (`quadrature`) or by NUTS (`sampling`).
"""
