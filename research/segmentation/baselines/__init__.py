"""Published ways to localise a class with CLIP: one file each, registered in `registry`."""
