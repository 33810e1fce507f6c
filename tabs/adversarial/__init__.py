"""The tab that makes pictures of one class that are read as another."""

from tabs.adversarial.tab import TITLE, build

__all__ = ["TITLE", "build"]
