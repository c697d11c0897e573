"""What a fit hands on: its numbers as tidy tables, shares of variance, principal components."""
