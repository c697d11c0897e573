"""`Model`, its two engines, and what `print(model)` says."""
