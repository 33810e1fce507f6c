"""Ablate or rescale units, in the effects and in the weights."""
