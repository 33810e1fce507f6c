"""The tab "Edit": neurons scaled, and what the model then says."""

from pathlib import Path

from tabs.edit.handlers import build
from tabs.edit.layout import TITLE

_HERE = Path(__file__).parent
CSS = (_HERE / "style.css").read_text()
HEAD = f"<script>{(_HERE / 'script.js').read_text()}</script>"

__all__ = ["CSS", "HEAD", "TITLE", "build"]
