"""Read what the neurons of a CLIP image encoder say, as text, and use it."""
