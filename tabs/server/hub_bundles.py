"""Bundles on the Hugging Face Hub that visitors name: fetched within bounds, the last few kept.

Whoever runs the page decides whether visitors may. A visitor's word is only ever the name of a
public repository: no file of this machine is opened because of it, not even from its own cache.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from threading import Lock

from clipneurons.bundle.bundle import load_bundle
from clipneurons.bundle.config import BundleConfig, BundleError
from clipneurons.bundle.hub import GatedRepository, NoSuchRepository, download
from tabs.server.session import BundleSession

# Each holds its arrays, and once used its model, in memory, and its files in a temporary folder.
MOST_OPEN = 2
MOST_BYTES = 2 * 2**30
# What a plain CLIP's configuration says; other entries make open_clip fetch from elsewhere.
_KNOWN = {
    "": {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"},
    "vision_cfg": {"layers", "width", "head_width", "patch_size", "image_size", "mlp_ratio"},
    "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers"},
}
# Of numbers that the shapes of the weights alone do not keep small.
_LARGEST = {"layers": 64, "image_size": 1024, "context_length": 512}
_LARGEST_OTHER = 100_000


class HubBundleCache:
    """The bundles that visitors have opened; the one used longest ago makes room."""

    def __init__(self, most: int = MOST_OPEN) -> None:
        self._most = most
        self._readings: OrderedDict[str, BundleSession] = OrderedDict()
        self._lock, self._fetching = Lock(), Lock()

    @property
    def sessions(self) -> list[BundleSession]:
        """What is open now, the latest used last."""
        with self._lock:
            return list(self._readings.values())

    def get(self, name: str) -> BundleSession | None:
        """An open bundle; nothing is fetched."""
        with self._lock:
            if name in self._readings:
                self._readings.move_to_end(name)
            return self._readings.get(name)

    def open(self, name: str) -> BundleSession:
        """The bundle "user/name" or "user/name@revision", fetched unless it is open."""
        with self._fetching:  # one at a time: two would hold twice the bytes
            session = self.get(name) or fetch(name)
            with self._lock:
                self._readings[name] = session
                self._readings.move_to_end(name)
                while len(self._readings) > self._most:
                    self._readings.popitem(last=False)
        return session


def fetch(name: str) -> BundleSession:
    """A public bundle with its model, in a folder that goes when the session goes.

    Raises `BundleError` or a subclass, with a message for the visitor.
    """
    cache = tempfile.mkdtemp(prefix="clipneurons-hub-")
    try:
        session = _fetched(name, cache)
    except BaseException:
        shutil.rmtree(cache, ignore_errors=True)
        raise
    # Requests that still use an evicted bundle keep its files.
    weakref.finalize(session, shutil.rmtree, cache, ignore_errors=True)
    return session


def _fetched(name: str, cache: str) -> BundleSession:
    bounds = dict(cache_dir=cache, most_bytes=MOST_BYTES, anonymous=True)
    try:
        folder = download(name, **bounds)
        bundle = load_bundle(folder)
        if bundle.config.model == ".":
            folder = download(f"{name.partition('@')[0]}@{folder.name}", weights=True, **bounds)
    except GatedRepository:
        raise GatedRepository(
            f"{name} is gated, and only public repositories are opened here. Who has access can "
            f"show it with: python app.py --bundle {name}"
        ) from None
    except NoSuchRepository:
        raise NoSuchRepository(
            f"There is no public repository {name} on the Hugging Face Hub. Expected user/name or "
            "user/name@revision; is it spelt like that?"
        ) from None
    check_model(bundle.config, folder)
    return BundleSession(name, folder, bundle)


def check_model(config: BundleConfig, folder: Path) -> None:
    """Refuse a stranger's model unless it is a plain CLIP of bounded size.

    Its weights come from the bundle itself, or are those of a name that open_clip knows.
    """
    import open_clip

    if config.model == ".":
        shapes = _shapes_of_file(folder)
        if _shapes_of(_plain(_settings(folder))) != shapes:
            raise BundleError("The bundle's weights do not fit its open_clip_config.json.")
        return
    if config.model not in open_clip.list_models():
        raise BundleError(
            f"The bundle was made with {config.model!r}, which is no model that open_clip knows."
        )
    if config.pretrained not in open_clip.list_pretrained_tags_by_model(config.model):
        raise BundleError(
            f"The bundle was made with weights {config.pretrained!r}, which open_clip does not "
            f"know for {config.model}."
        )
    shapes = _shapes_of(_plain(open_clip.get_model_config(config.model)))
    size = 4 * sum(math.prod(shape) for shape in shapes.values())
    if size > MOST_BYTES:
        raise BundleError(
            f"{config.model} takes {size / 2**30:.1f} GB of memory; models of at most "
            f"{MOST_BYTES / 2**30:.0f} GB are opened here."
        )


def _settings(folder: Path) -> dict:
    try:
        config = json.loads((folder / "open_clip_config.json").read_text())
        settings, pictures = config["model_cfg"], config.get("preprocess_cfg", {})
        if "size" in pictures and pictures["size"] != settings["vision_cfg"]["image_size"]:
            raise BundleError("The bundle's model is given pictures of another size than its own.")
        return settings
    except BundleError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise BundleError(
            "The bundle says that its model is beside it, but holds no open_clip_config.json that "
            "can be read."
        ) from None


def _plain(settings: dict) -> dict:
    """The settings, after a look at every name and number in them."""
    for place, name, value in _entries(settings):
        parts = value if isinstance(value, list) else [value]
        most = _LARGEST.get(name, _LARGEST_OTHER)
        numbers = all(isinstance(part, int | float) and 0 <= part <= most for part in parts)
        if name not in _KNOWN[place] or not numbers or len(parts) > 4:
            raise BundleError(
                f"The bundle's model is no plain CLIP that is opened here: its configuration has "
                f"{name} = {value!r}."
            )
    return settings


def _entries(settings: dict) -> Iterator[tuple[str, str, object]]:
    for name, value in settings.items():
        if name in ("vision_cfg", "text_cfg") and isinstance(value, dict):
            yield from ((name, inner, number) for inner, number in value.items())
        else:
            yield "", name, value


def _shapes_of(settings: dict) -> dict[str, tuple[int, ...]]:
    """Shapes of a model's weights; on the meta device nothing is allocated."""
    import open_clip
    import torch

    try:
        with torch.device("meta"):
            model = open_clip.CLIP(**settings)
    except (TypeError, ValueError, RuntimeError, ArithmeticError, AssertionError) as error:
        raise BundleError(f"The bundle's model cannot be built: {error}") from None
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _shapes_of_file(folder: Path) -> dict[str, tuple[int, ...]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / "open_clip_model.safetensors", "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        raise BundleError(
            "The bundle says that its model is beside it, but holds no "
            "open_clip_model.safetensors that can be read."
        ) from None
