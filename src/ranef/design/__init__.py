"""From a formula and a data frame to arrays and names: the `Design`.

Here data that cannot carry the model are refused.
"""
