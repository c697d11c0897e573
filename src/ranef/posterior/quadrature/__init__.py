"""The posterior of a few variance parameters by deterministic integration on a lattice."""
