"""Contributions of neurons, heads and tokens to CLIP's image embedding."""
