"""Results as HTML for notebooks: self-contained, escaped, legible on light and dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from clipneurons.images.convert import png_uri
from clipneurons.images.heatmap import overlay

# Okabe and Ito's blue and vermilion: told apart by all common kinds of colour vision.
PLUS, MINUS = "#0072B2", "#D55E00"
# Longest side of an embedded picture: an output cell stays below a megabyte.
_SIDE = 224
_STYLE = """<style>
.cnn{font:14px/1.4 system-ui,sans-serif;max-width:56em}.cnn h3{margin:0 0 .2em}
.cnn h4{margin:1em 0 .3em}.cnn p{margin:.2em 0;opacity:.8}
.cnn table{border-collapse:collapse;width:100%;margin:0}
.cnn tr,.cnn td{background:none;border:0;padding:1px 6px;text-align:left;vertical-align:middle}
.cnn td:nth-child(2){width:45%}.cnn td:last-child{width:4.5em;text-align:right}
.cnn i{display:block;height:.8em}
.cnn div{display:flex;flex-wrap:wrap;gap:6px}.cnn figure{margin:0;width:128px}
.cnn figure img{width:128px;height:128px;object-fit:contain}
.cnn figcaption{font-size:11px;opacity:.8;overflow-wrap:anywhere}
</style>"""


def article(title: str, *parts: str, note: str = "") -> str:
    """A result: its title, one line about it, and its parts."""
    note = f"<p>{escape(note)}</p>" if note else ""
    return f'{_STYLE}<article class="cnn"><h3>{escape(title)}</h3>{note}{"".join(parts)}</article>'


def bars(title: str, rows: Sequence[tuple[str, float]], digits: int = 2) -> str:
    """Signed values as bars; nothing without rows."""
    if not rows:
        return ""
    most = max(abs(value) for _, value in rows) or 1.0
    cells = "".join(
        f"<tr><td>{escape(text)}</td><td><i style='width:{100 * abs(value) / most:.0f}%;background:"
        f"{PLUS if value >= 0 else MINUS}'></i></td><td>{number(value, digits)}</td></tr>"
        for text, value in rows
    )
    return f"<h4>{escape(title)}</h4><table>{cells}</table>"


def gallery(title: str, images: Sequence[tuple[Image.Image, str]]) -> str:
    """Pictures with captions; nothing without any."""
    if not images:
        return ""
    figures = "".join(
        f'<figure><img alt="{escape(caption)}" src="{png_uri(_small(image))}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for image, caption in images
    )
    return f"<h4>{escape(title)}</h4><div>{figures}</div>"


def lit(image: Image.Image, shares: Float[Tensor, "row column"]) -> Image.Image:
    """A picture with a map in 0..1 over it."""
    return overlay(_small(image), shares)


def number(value: float, digits: int = 2) -> str:
    """A number as tables write it, with a true minus."""
    return f"{value:.{digits}f}".replace("-", "−")


def painted(image: Image.Image, mask: Sequence[Sequence[bool]] | Tensor) -> Image.Image:
    """A picture that is dark outside a mask of its shape."""
    small = _small(image)
    alpha = Image.fromarray(np.asarray(mask, dtype=np.uint8) * 255).resize(small.size)
    return Image.composite(small, Image.blend(small, Image.new("RGB", small.size), 0.75), alpha)


def _small(image: Image.Image) -> Image.Image:
    small = image.convert("RGB")
    small.thumbnail((_SIDE, _SIDE))
    return small
