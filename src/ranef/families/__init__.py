"""Response distributions and their links, one file a family.

A family says everything that is to be known of its distribution; no other room asks for its name.
"""
