"""Sphinx: `make docs` builds the site into docs/_build/html; warnings are errors."""

import os
import sys
from pathlib import Path

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]
os.environ["PYTHONPATH"] = str(ROOT)  # of the tutorials' kernels

project = "clipneurons"
author = "The clipneurons team"
copyright = "2026, the clipneurons team"
release = "0.1.0"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinxarg.ext",
]
exclude_patterns = ["_build", "conf.py", "parsers.py", "requirements.txt"]
html_theme = "furo"
html_title = "clipneurons"

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

# Tutorials run when the site is built, so that their outputs are this version's.
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "cache"
nb_execution_timeout = 240
nb_execution_raise_on_error = True
nb_merge_streams = True

autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
# Only the public names have a page here, neither other projects nor the modules behind them.
nitpick_ignore_regex = [("py:.*", r"(?!clipneurons\.[A-Za-z_]+$).*")]


# Formulas are MathML, so that the site needs no script of another host.
html_math_renderer = "mathml"


def setup(app) -> None:
    """Register the renderer of formulas."""
    app.add_html_math_renderer(
        "mathml",
        inline_renderers=(lambda page, node: _formula(page, node, "inline"), None),
        block_renderers=(lambda page, node: _formula(page, node, "block"), None),
    )


def _formula(page, node, display) -> None:
    page.body.append(convert(node.astext(), display=display))
    raise SkipNode
