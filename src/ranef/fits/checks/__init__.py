"""What speaks for and against a fit: influence of groups, residuals, and a page of checks."""
