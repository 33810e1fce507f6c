"""A picture's file is written once, whole, and never again while a browser is sent it.

Gradio names a picture's file by what is in it, and writes it anew, from nothing, for every visitor
that the picture is shown to: whoever was being sent it got a part, and saw a broken picture.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from gradio import processing_utils
from PIL import Image


def write_pictures_once() -> None:
    """From now on, for the whole process."""
    processing_utils.save_pil_to_cache = _saved


def _saved(img: Image.Image, cache_dir: str, name: str = "image", format: str = "webp") -> str:
    """Gradio's `save_pil_to_cache`: the path of the picture's file in the cache."""
    data = processing_utils.encode_pil_to_bytes(img, format)
    path = Path(cache_dir).resolve() / processing_utils.hash_bytes(data) / f"{name}.{format}"
    if not path.exists():
        path.parent.mkdir(exist_ok=True, parents=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as part:
            part.write(data)
        os.replace(part.name, path)
    return str(path)
