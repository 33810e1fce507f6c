"""Parts of the page: style, plots, cards and image inputs."""
