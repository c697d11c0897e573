"""The arrays of a design with one entry a row: those of the data, or fewer that stand for them."""
