"""Semantic adversarial images: cues, descriptions, pictures and verdicts."""
