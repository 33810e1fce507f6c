"""Pipelines: run with `python -m export`."""
