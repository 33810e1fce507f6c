"""Data sets: where images and masks come from."""
