"""What a fit says of its predictors: marginal means, contrasts, slopes, linear hypotheses."""
