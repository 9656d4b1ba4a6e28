"""NumPy's functions as compositions of ops, over whatever trace is under way.

A traced value has `type`, `shape`, `ndim` and `weak`; Python numbers pass through as they are.
"""
