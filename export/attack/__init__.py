"""Adversarial pictures of many class pairs: made, kept and counted."""
