"""The tab that finds words in an image: heat maps, masks, regions, and which neurons voted."""

from tabs.segmentation.tab import TITLE, build

__all__ = ["TITLE", "build"]
