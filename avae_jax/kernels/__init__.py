"""Kernels: operations on arrays that carry their own tiling and derivatives."""
