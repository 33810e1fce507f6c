"""Power of the shift monitor on planted shifts."""
