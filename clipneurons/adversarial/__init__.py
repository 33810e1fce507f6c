"""Semantic adversarial images: cues, descriptions, images and verdicts."""
