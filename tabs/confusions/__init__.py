"""The tab "Confusions": which classes a model confuses, and the units behind it."""

from pathlib import Path

from tabs.confusions.handlers import build
from tabs.confusions.layout import TITLE

_HERE = Path(__file__).parent
CSS = (_HERE / "style.css").read_text()
HEAD = f"<script>{(_HERE / 'script.js').read_text()}</script>"

__all__ = ["CSS", "HEAD", "TITLE", "build"]
