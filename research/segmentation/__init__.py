"""Segmentation methods compared."""
