"""Measurements of a bundle, one a file."""
