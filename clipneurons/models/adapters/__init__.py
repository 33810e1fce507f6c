"""From one family's modules to the anatomy that the lenses read; one family a file."""
