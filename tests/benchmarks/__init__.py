"""Times of graphc beside NumPy, torch and JAX: `python -m tests.benchmarks`."""
