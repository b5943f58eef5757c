"""A whole artifact in a folder outside the package: what adding one takes. `tests/test_toy_artifact.py` uses it."""
