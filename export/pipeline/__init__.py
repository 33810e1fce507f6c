"""From a model and images to the files of a bundle."""
