"""Fits of estimates with known standard errors, as of studies: how much they differ, forests."""
