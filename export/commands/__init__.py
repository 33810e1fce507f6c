"""The commands of `python -m export`, one a file."""
