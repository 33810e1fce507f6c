"""Shapes in signatures are checked under pytest only; tests never reach the network."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from jaxtyping import install_import_hook

import tests.helpers.typechecker  # noqa: F401  (the hook names it, and does not import it)

install_import_hook("clipneurons", "tests.helpers.typechecker.check")
