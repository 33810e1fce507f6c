"""The tab "Explore": a map of all units, search by words, one dashboard a unit, a table of all."""

from pathlib import Path

from tabs.explore.handlers import build
from tabs.explore.layout import TITLE

HERE = Path(__file__).parent
HEAD = f"<script>{(HERE / 'map.js').read_text()}</script>"
CSS = (HERE / "style.css").read_text()

__all__ = ["CSS", "HEAD", "TITLE", "build"]
