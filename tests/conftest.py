"""Shapes in signatures are checked under pytest only; tests never reach the network."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
# The models here are tiny: threads would wait for each other, and for the other worker's.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from jaxtyping import install_import_hook
from open_clip import SimpleTokenizer

import tests.helpers.typechecker  # noqa: F401  (the hook names it, and does not import it)

install_import_hook("clipneurons", "tests.helpers.typechecker.check")


_vocabularies: dict[str, dict] = {}


def _share_vocabularies() -> None:
    """Read the tables of open_clip's tokenizer once: they take 0.3 s, for every model of a test."""
    original = SimpleTokenizer.__init__

    def init(self, *arguments, **options):
        key = repr((arguments, sorted(options.items())))
        if key not in _vocabularies:
            original(self, *arguments, **options)
            _vocabularies[key] = self.__dict__
        self.__dict__.update(_vocabularies[key])

    SimpleTokenizer.__init__ = init


_share_vocabularies()


def pytest_collection_modifyitems(items):
    """The files beside this one run whole programs and take longest: where files are shared out
    among processes, they go first, so that none is left running alone."""
    items.sort(key=lambda item: item.path.parent != Path(__file__).parent)
