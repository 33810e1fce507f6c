"""Bundles on the Hugging Face Hub that visitors name: fetched within bounds, the last few kept.

Whoever runs the page decides whether visitors may. A visitor's word is only ever the name of a
public repository: no file of this machine is opened because of it, not even from its own cache.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections import OrderedDict
from pathlib import Path
from threading import Lock

from clipneurons.bundle.bundle import load_bundle
from clipneurons.bundle.config import CHECKPOINT_FILES, BundleConfig, BundleError
from clipneurons.bundle.hub import (
    REPOSITORY,
    GatedRepository,
    HubError,
    NoSuchRepository,
    download,
    download_model,
)
from tabs.server.session import BundleSession
from tabs.server.strangers_model import ON_HUB, check_model

# Each holds its arrays, and once used its model, in memory, and its files in a temporary folder.
MOST_OPEN = 2
MOST_BYTES = 2 * 2**30
# What is fetched of a repository that a bundle names as its model.
_OPEN_CLIP_FILES = ("open_clip_config.json", "open_clip_model.safetensors")
_CHECKPOINT_NAMES = tuple(Path(name).name for name in CHECKPOINT_FILES)


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
    bounds = dict(cache_dir=cache, most_bytes=MOST_BYTES)
    try:
        folder = download(name, anonymous=True, **bounds)
        bundle = load_bundle(folder)
        if bundle.config.carries_model:
            pinned = f"{name.partition('@')[0]}@{folder.name}"
            folder = download(pinned, weights=True, anonymous=True, **bounds)
        model = _model_folder(bundle.config, folder, bounds)
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
    check_model(bundle.config, model or folder, MOST_BYTES)
    return BundleSession(name, folder, bundle, model)


def _model_folder(config: BundleConfig, folder: Path, bounds: dict) -> Path | None:
    """Where the weights lie: in the bundle, or fetched for it; None for a name of open_clip's."""
    import open_clip

    if config.carries_model:
        return folder / config.model
    if config.model in open_clip.list_models():
        return None
    repository = config.model.removeprefix(ON_HUB)
    if not REPOSITORY.fullmatch(repository) or config.pretrained:
        raise BundleError(
            f"The bundle was made with {config.model!r}, which is no model that open_clip knows, "
            "and no repository on the Hub."
        )
    try:
        own = config.model.startswith(ON_HUB)
        return download_model(repository, _OPEN_CLIP_FILES if own else _CHECKPOINT_NAMES, **bounds)
    except HubError as error:
        raise BundleError(f"The bundle's model cannot be had: {error}") from None
