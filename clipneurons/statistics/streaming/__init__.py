"""Statistics of a stream of images: `update` with a batch, `merge` with another process's."""
