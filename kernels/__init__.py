"""Numeric kernels: the paged attention and the small fused operations of a step.

Each kernel has a plain torch reference and a compiled CPU form (numba). Knows nobody: imports nothing of zqserve.
"""
