"""The tab "Neuron dictionary": search by words, browse, one card a neuron, a table of all."""

from tabs.dictionary.events import build
from tabs.dictionary.widgets import TITLE

__all__ = ["TITLE", "build"]
