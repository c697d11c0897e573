"""What a fit hands on: its numbers as one tidy table, one row, or a page."""
