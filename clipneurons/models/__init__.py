"""CLIP models: loading, preprocessing and recorded activations."""
