"""Adversarial images of many class pairs: made, kept and counted."""
