"""Pictograms, the scenes composed of them and their captions."""
