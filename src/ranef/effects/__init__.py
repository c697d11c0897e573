"""What a fit says of its predictors: marginal means, contrasts and linear hypotheses."""
