"""What a user holds after fitting: point estimates and posteriors, their tables and plots.

No engine is imported here: a fit asks its model through the `Engine` protocol.
"""
