"""`python -m export shift`: compare two sets of images."""
