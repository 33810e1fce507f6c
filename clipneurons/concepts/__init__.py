"""Concepts of an image and of its patches."""
