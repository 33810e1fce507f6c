"""From what a user typed to a model, a lens, images and texts; mistakes become `UserError`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from clipneurons.bundle.config import BUNDLE_FILES, CHECKPOINT, CHECKPOINT_FILES, MODEL_FILES
from clipneurons.bundle.folders import CHECKSUMS
from clipneurons.bundle.sparse_features import (
    FeatureError,
    SparseFeatures,
    features_from_bytes,
    features_to_bytes,
)
from clipneurons.lens.feature_files import load_features
from clipneurons.lens.lens import Lens, default_layers
from clipneurons.models.clip import ClipModel
from clipneurons.models.open_clip_folder import WEIGHTS_FILE, whole_file
from clipneurons.progress import Progress
from clipneurons.shipped import ARTIFACTS, TOWERS
from clipneurons.text.pools import VOCABULARY, TextPool, text_pool
from clipneurons.text.reading import ReadPool, as_read
from export.common.errors import UserError
from export.common.models import open_clip_model
from export.common.settings import Settings
from export.data.dataset import Source
from export.data.open_source import SCENES, is_scenes, open_source, ships
from export.evaluation.self_check import Checked, self_check
from export.pipeline import distributed
from export.pipeline.feature_figures import FeatureFigures, measure_on

# Scenes for the figures: with one object each, from a seed of their own.
HELDOUT_SCENES = f"{SCENES}:1000"


@dataclass(frozen=True)
class Inputs:
    """What a run was asked for and everything that it reads, opened once.

    `heldout` are the images of the fidelity figures, None where there will be none.
    """

    settings: Settings
    lens: Lens
    source: Source
    texts: ReadPool
    heldout: Source | None
    workers: int = 1
    progress: Progress | None = None  # told how far the passes are, in place of a bar

    @property
    def clip(self) -> ClipModel:
        """The model."""
        return self.lens.clip

    @property
    def pool(self) -> TextPool:
        """The texts, as the model reads them."""
        return self.texts.pool

    @cached_property
    def self_check(self) -> Checked | None:
        """How well the model reads photographs; also otherwise where a file leaves that open."""
        settings = self.settings
        is_file = settings.pretrained is not None and Path(settings.pretrained).is_file()
        return self_check(self.clip, other_readings=is_file)

    @property
    def features(self) -> SparseFeatures | None:
        """The dictionary, of a run of features."""
        return self.lens.method.features[0] if self.settings.features else None

    @cached_property
    def features_sha256(self) -> str:
        """Digest of the dictionary's weights and settings; empty for neurons."""
        return digest_of(self.features) if self.features else ""

    @property
    def weights(self) -> str:
        """Digest of all that computes effects."""
        return "-".join(filter(None, (self.clip.sha256(), self.features_sha256)))

    @cached_property
    def feature_figures(self) -> FeatureFigures:
        """What the dictionary explains on a sample of the images."""
        (layer,) = self.lens.layers
        site = self.lens.method.site(layer)
        return measure_on(self.features, site, self.source, self.workers)


def digest_of(features: SparseFeatures) -> str:
    """SHA-256 over a dictionary as it is saved, whatever its source is called."""
    return hashlib.sha256(features_to_bytes(replace(features, source=""))).hexdigest()


def open_inputs(
    settings: Settings, workers: int = 1, device: str | None = None, clip: ClipModel | None = None
) -> Inputs:
    """Open what the settings name, after filling in the defaults that depend on the model.

    `device` is where to work instead of where the settings say, `clip` the model that the settings
    name, where it is open already.
    """
    if clip is None:
        device = distributed.local_device(device or settings.device)
        clip = open_model_of(settings, device, precision=settings.precision)
    if not clip.reads_texts:
        raise UserError(
            f"{settings.model} has no text tower, and a bundle describes units in texts: expected a"
            " checkpoint of both towers. `load_clip` and the lenses read its images without one"
        )
    lens = open_lens(clip, settings)
    settings = with_defaults(settings, lens)
    source = open_images(settings, clip)
    texts = as_read(clip, open_texts(settings.texts))
    check_centring(settings.centred_pool, len(texts.pool))
    # A mean with the shared bias in it has no figures.
    measured = settings.evaluate and not settings.shared_bias
    heldout = heldout_images(settings, clip) if measured else None
    return Inputs(settings, lens, source, texts, heldout, workers)


def open_model_of(settings: Settings, device: str | None, precision: str = "fp32") -> ClipModel:
    """The model that the settings name."""
    return open_clip_model(
        settings.model, settings.pretrained, device, precision=precision,
        activation=settings.activation, preprocess=settings.preprocess,
        image_size=settings.image_size,
    )  # fmt: skip


def with_defaults(settings: Settings, lens: Lens) -> Settings:
    """The settings with the layers and texts of a run that named none."""
    if not 0 <= settings.percentile <= 100:
        raise UserError(f"--percentile {settings.percentile}: expected 0 to 100")
    return replace(
        settings,
        layers=lens.layers,
        texts=settings.texts or default_texts(settings.model, settings.images),
    )


def default_texts(model: str, images: str) -> str:
    """Common words; for a bundled model its captions' words, the only ones it was trained on."""
    bundled = Path(model).resolve().is_relative_to(ARTIFACTS)
    return VOCABULARY if bundled or is_scenes(images) else "common-30k"


def weights_sha256(clip: ClipModel, settings: Settings) -> str:
    """Digest of the model in fp32, in which readers load it, whatever precision made the bundle."""
    if settings.precision != "fp32":
        clip = open_model_of(settings, "cpu")
    return clip.sha256()


def open_lens(clip: ClipModel, settings: Settings) -> Lens:
    """The lens of the settings' layers, or of their dictionary."""
    layers = settings.layers or default_layers(clip)
    try:
        if settings.features is None:
            shared_bias = settings.shared_bias and clip.kind == "vit"
            return Lens(clip, layers, shared_bias=shared_bias)
    except ValueError as error:
        raise UserError(f"--layers: {error}") from None
    if settings.shared_bias or len(settings.layers) > 1:
        raise UserError("--features: one dictionary has one layer, and no shared bias")
    try:
        features = load_features(settings.features, *settings.layers)
        if settings.storage == "float16":  # as the bundle will hold it
            features = features_from_bytes(features_to_bytes(features, half=True))
        return Lens(clip, features=features)
    except FeatureError as error:
        raise UserError(f"--features: {error}") from None


def open_images(settings: Settings, clip: ClipModel) -> Source:
    """The images of a run, of the size that the model takes where they are composed."""
    return open_source(
        settings.images,
        split=settings.split,
        limit=settings.limit,
        seed=settings.seed,
        image_size=max(clip.image_size),
        image_key=settings.image_key,
    )


def heldout_images(settings: Settings, clip: ClipModel) -> Source:
    """Images that the statistics did not see, where there are any."""
    spec = settings.heldout or settings.images
    if not settings.heldout and ships(spec):
        parts = spec.split("+")
        spec = "+".join(HELDOUT_SCENES if is_scenes(part) else part for part in parts)
    same = spec == settings.images
    return open_source(
        spec,
        split=settings.split if same else None,
        limit=settings.limit if same else None,
        seed=settings.seed + 1,
        image_size=max(clip.image_size),
        heldout=ships(spec),
        image_key=settings.image_key,
    )


def open_texts(name: str) -> TextPool:
    """The pool of texts of that name or file."""
    try:
        return text_pool(name)
    except ValueError as error:
        raise UserError(f"--texts: {error}") from None


def check_centring(centred: bool, texts: int) -> None:
    """Refuse what could only fail after the passes: one text minus the pool's mean is zero."""
    if centred and texts < 2:
        raise UserError("--centred-pool needs at least two texts, the pool has one")


def default_out(model: str) -> str:
    """Where a bundle goes without `--out`."""
    if Path(model).is_dir():
        # Beside a checkpoint of transformers two files would be called config.json.
        beside = (Path(model) / MODEL_FILES[0]).exists()
        return model if beside else f"artifacts/{Path(model).resolve().name.lower()}"
    return f"artifacts/{model.removeprefix('hf-hub:').replace('/', '--').lower()}"


def check_out(out: Path, overwrite: bool) -> None:
    """Refuse to touch a bundle that was not meant, or a folder that is something else."""
    if (out / CHECKSUMS).exists():
        if not overwrite:
            raise UserError(
                f"{out} holds a bundle already: add --overwrite, or choose another --out"
            )
        return
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file, expected a folder")
    known = {*MODEL_FILES, *BUNDLE_FILES, "examples"}
    names = sorted(path.name for path in out.iterdir()) if out.exists() else []
    for name in names:
        if name not in known and not name.startswith("."):
            raise UserError(f"--out {out} holds other files ({name}): choose a folder of its own")


def checkpoint_files(folder: Path) -> dict[str, Path]:
    """The files of a checkpoint of transformers by their names in a bundle.

    Raises `UserError` for weights in several files, which a bundle does not list.
    """
    if not (folder / "model.safetensors").is_file():
        raise UserError(
            f"{folder} holds no model.safetensors, or its weights in parts: expected one file, "
            "as save_pretrained(FOLDER, max_shard_size='100GB') writes it"
        )
    there = {name: folder / Path(name).name for name in CHECKPOINT_FILES}
    return {name: path for name, path in there.items() if path.is_file()}


def model_files(model: str, out: Path) -> tuple[str, dict[str, Path | bytes]]:
    """What `config.json` calls the model, and the weights to put beside the bundle.

    A model that is a folder travels with its bundle, which nobody else could find; one that ships
    is named by a bundle that ships.
    """
    folder = Path(model)
    if not folder.is_dir():
        return model, {}
    shipped, beside = folder.resolve(), out.resolve()
    ships = shipped.name in TOWERS and shipped.parent == beside.parent == ARTIFACTS
    if ships and shipped != beside:
        return shipped.name, {}
    if not (folder / MODEL_FILES[0]).exists():
        return f"./{CHECKPOINT}", checkpoint_files(folder)
    if out.exists() and folder.samefile(out):
        return ".", {}
    files = {name: folder / name for name in MODEL_FILES if (folder / name).is_file()}
    return ".", files | {WEIGHTS_FILE: whole_file(folder)}
