"""The tab "Concepts": what a model's units recognise in an image, and where."""

from tabs.concepts.handlers import build
from tabs.concepts.layout import TITLE

__all__ = ["TITLE", "build"]
