"""A fit once more: responses drawn from it, its model fitted to other responses and data."""
