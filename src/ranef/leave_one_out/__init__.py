"""Log predictive densities of rows and groups that are left out."""
