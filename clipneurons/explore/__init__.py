"""What the units of a bundle say: phrase by phrase, image by image, patch by patch."""
