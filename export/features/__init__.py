"""Dictionaries of sparse features, trained on a source of images."""
