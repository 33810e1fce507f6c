"""Concepts compared with the ground truth."""
