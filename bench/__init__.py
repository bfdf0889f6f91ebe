"""Measures and long runs: never part of the product, never run by `make test`."""
