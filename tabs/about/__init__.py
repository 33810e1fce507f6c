"""The tab "About": the method, and the bundle with its figures, limits and model card."""

from tabs.about.handlers import build
from tabs.about.layout import TITLE

__all__ = ["TITLE", "build"]
