"""Bundles: the analysis of a model as files, local or on the Hub."""
