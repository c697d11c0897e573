"""Before the data: responses of a design at stated parameters, and what a study of a size finds."""
