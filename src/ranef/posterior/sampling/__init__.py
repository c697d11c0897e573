"""The posterior by NUTS; the one room that imports PyMC, PyTensor, nutpie and Numba."""
