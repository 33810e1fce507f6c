"""Ablating classifiers with planted spurious cues."""
