"""The tab "Explore": search by words, browse, one dashboard a unit, a table of all."""

from tabs.explore.handlers import build
from tabs.explore.layout import TITLE

__all__ = ["TITLE", "build"]
