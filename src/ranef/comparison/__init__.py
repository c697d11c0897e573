"""Several models: comparison by predictions and Bayes factors, and tests of nested models."""
