"""Pictures of what a fit is made of: its matrices, and the densities of its parameters."""
