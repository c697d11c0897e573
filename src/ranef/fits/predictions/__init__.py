"""What a fit says of rows and of groups: predictions and coefficients, with intervals and draws."""
