"""What a fit hands on: tidy tables, shares of variance, principal components, meta-analyses."""
