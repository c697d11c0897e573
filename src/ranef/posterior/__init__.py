"""The posterior density with the random effects integrated out, and what is computed from it.

The wings integrate it: on a lattice (`quadrature`) or by NUTS (`sampling`).
"""
