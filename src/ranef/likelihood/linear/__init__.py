"""Linear mixed models: cross-products, the blocked Cholesky factor, REML and ML."""
