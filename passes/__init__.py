"""Graph to graph: one pass a file, and `pipeline.py` the order in which they run."""
