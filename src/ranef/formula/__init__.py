"""From the text of a formula to its terms.

Here is the allow-list of functions; no text of a formula is ever compiled.
"""
