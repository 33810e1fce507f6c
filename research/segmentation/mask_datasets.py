"""Images with the true masks of what is in them, from the data sets the papers use and our own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from PIL import Image

from clipneurons.synthetic.collages import Collages
from clipneurons.synthetic.pictograms import load_pictograms
from clipneurons.synthetic.scenes import SceneConfig, Scenes
from export.common.errors import UserError
from export.data.open_source import PHOTOGRAPHS, SCENES
from export.data.packed_sources import shipped_photographs

# Of photographs of 64 pixels, so that a cut one is hardly shrunk.
_COLLAGE_SIDE = 128
# Pixels below which an object counts as covered by the others.
_VISIBLE = 16
# openmoji is in no training; the small CLIP's training set fxemoji aside to choose by. (The second
# held-out style, emojione-v1, has near-copies among the trained ones.)
STYLES = {"heldout": "openmoji", "validation": "fxemoji"}
# Made here, with material to choose by and material to report on.
COMPOSED = (SCENES, PHOTOGRAPHS)
Loaded = TypeVar("Loaded")
_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


class SegmentationDataError(UserError):
    """A data set that cannot be read as its kind says; the message says what was expected."""


@dataclass(frozen=True)
class Sample:
    """One image and the masks ``[height, width]`` of the classes in it.

    ``valid`` leaves pixels out of every count. A class of None stands for the one that the
    model itself predicts, as in the papers' ImageNet-Segmentation.
    """

    image: Image.Image
    masks: dict[str | None, np.ndarray]
    valid: np.ndarray | None = None


@dataclass(frozen=True)
class MaskSet(Generic[Loaded]):
    """A data set: images with masks by index, and the names of all its classes."""

    name: str
    count: int
    class_names: tuple[str, ...]
    load: Callable[[int], Loaded]

    def __iter__(self) -> Iterator[Loaded]:
        return (self.load(index) for index in range(self.count))


def open_mask_set(
    spec: str,
    *,
    count: int | None = None,
    styles: str = "heldout",
    seed: int = 0,
    image_size: int = 64,
    images: str | None = None,
    masks: str | None = None,
) -> MaskSet[Sample]:
    """The data set that ``--dataset`` names, its first ``count`` samples.

    ``scenes`` (composed on the fly, in the ``heldout`` or ``validation`` style); ``photographs``
    (cut onto other photographs, those kept for figures or the others); a ``.mat`` file
    (ImageNet-Segmentation); a ``.json`` file (COCO, with ``images`` and ``masks`` folders); or a
    folder with one folder a class of ``name.jpg`` / ``name.png`` pairs.

    Raises:
        SegmentationDataError: what was expected and what was found.
    """
    path = Path(spec)
    if spec == SCENES:
        return _scenes(1000 if count is None else count, styles, seed, image_size)
    if spec == PHOTOGRAPHS:
        return _collages(1000 if count is None else count, styles, seed)
    if not path.exists():
        raise SegmentationDataError(
            f"{spec} is neither 'scenes', 'photographs' nor a file or folder. Expected scenes, "
            "photographs, a .mat file (ImageNet-Segmentation), a COCO .json file, or a folder of "
            "image and mask pairs"
        )
    if path.suffix == ".mat":
        found = _imagenet_segmentation(path)
    elif path.suffix == ".json":
        found = _coco(path, images, masks)
    else:
        found = _pairs(path)
    if found.count == 0:
        raise SegmentationDataError(f"{spec} holds no image with a mask")
    kept = found.count if count is None else min(count, found.count)
    return MaskSet(found.name, kept, found.class_names, found.load)


def scenes_of(styles: str, count: int, seed: int, **config) -> Scenes:
    """Composed scenes in the `heldout` or `validation` style; `config` is that of `Scenes`."""
    pack = load_pictograms(heldout=styles == "heldout")
    return Scenes(pack, SceneConfig(styles=(STYLES[styles],), **config), count, seed)


def collages_of(
    styles: str, count: int, seed: int, side: int, names: Sequence[str] | None = None
) -> Collages:
    """Photographs cut onto one another, those kept for figures or the others."""
    return Collages(shipped_photographs(styles == "heldout").pack, count, seed, side, names)


def _scenes(count: int, styles: str, seed: int, image_size: int) -> MaskSet[Sample]:
    scenes = scenes_of(styles, count, seed, size=image_size)

    def load(index: int) -> Sample:
        scene = scenes[index]
        masks: dict[str | None, np.ndarray] = {}
        for item in scene.objects:
            mine = np.asarray(item.mask, dtype=bool)
            if mine.sum() >= _VISIBLE:
                masks[item.name] = mine
        return Sample(Image.fromarray(np.asarray(scene.image)), masks)

    return MaskSet(
        f"{count} scenes, {styles} style {STYLES[styles]}", count, tuple(scenes.pack.concepts), load
    )


def _collages(count: int, styles: str, seed: int) -> MaskSet[Sample]:
    made = collages_of(styles, count, seed, _COLLAGE_SIDE)

    def load(index: int) -> Sample:
        collage = made[index]
        return Sample(Image.fromarray(collage.image), dict(collage.masks))

    return MaskSet(f"{count} cut photographs, {styles}", count, tuple(sorted(made.rows)), load)


def _pairs(folder: Path) -> MaskSet[Sample]:
    """``class name/image.jpg`` beside ``class name/image.png``; what is not black is the class."""
    found = []
    for path in sorted(folder.glob("*/*")):
        mask = path.with_suffix(".png")
        if path.suffix.lower() in _IMAGES and path != mask and mask.is_file():
            found.append((path, mask))
    if not found:
        raise SegmentationDataError(
            f"{folder} holds no pairs: expected <class name>/<image>.jpg with its mask in "
            "<class name>/<image>.png"
        )

    def load(index: int) -> Sample:
        path, mask_path = found[index]
        image = _open(path)
        mask = np.asarray(_open(mask_path).convert("L")) > 0
        if mask.shape != image.size[::-1]:
            raise SegmentationDataError(
                f"{mask_path} is {mask.shape[1]} x {mask.shape[0]} pixels, its image "
                f"{image.size[0]} x {image.size[1]}"
            )
        return Sample(image, {_class_name(path.parent): mask})

    names = tuple(sorted({_class_name(path.parent) for path, _ in found}))
    return MaskSet(folder.name, len(found), names, load)


def _open(path: Path) -> Image.Image:
    with Image.open(path) as file:
        file.load()
        return file


def _class_name(folder: Path) -> str:
    return folder.name.replace("_", " ")


def _imagenet_segmentation(path: Path) -> MaskSet[Sample]:
    """``gtsegs_ijcv.mat``: MATLAB 7.3, which is HDF5 with references; nothing is executed."""
    try:
        import h5py
    except ModuleNotFoundError:
        raise SegmentationDataError(
            f"reading {path.name} needs the package h5py: pip install h5py"
        ) from None
    from open_clip import IMAGENET_CLASSNAMES

    try:
        file = h5py.File(path, "r")
        pictures, truths = file["value/img"], file["value/gt"]
    except (OSError, KeyError) as error:
        raise SegmentationDataError(
            f"{path} is not ImageNet-Segmentation's gtsegs_ijcv.mat (MATLAB 7.3 with value/img "
            f"and value/gt): {error}"
        ) from None

    def load(index: int) -> Sample:
        # MATLAB keeps columns first; the first annotator's mask is the one the papers use.
        image = np.array(file[pictures[index, 0]]).transpose(2, 1, 0)
        mask = np.array(file[file[truths[index, 0]][0, 0]]).T
        return Sample(Image.fromarray(image.astype(np.uint8)), {None: mask > 0})

    return MaskSet("ImageNet-Segmentation", len(pictures), tuple(IMAGENET_CLASSNAMES), load)


def _coco(path: Path, images: str | None, masks: str | None) -> MaskSet[Sample]:
    """A COCO annotation file: panoptic (with PNG files of segment ids) or instance run lengths."""
    try:
        data = json.loads(path.read_text())
        categories = {c["id"]: c["name"] for c in data["categories"]}
        files = {image["id"]: image for image in data["images"]}
        annotations = data["annotations"]
    except (ValueError, KeyError, TypeError) as error:
        raise SegmentationDataError(
            f"{path} is not a COCO annotation file (images, annotations, categories): {error}"
        ) from None
    folder = path.parent if images is None else Path(images)
    by_image: dict[int, list[dict]] = {}
    for annotation in annotations:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    order = sorted(by_image)
    panoptic = bool(annotations) and "segments_info" in annotations[0]
    if panoptic and masks is None:
        raise SegmentationDataError(f"{path} is panoptic: say where its PNG files are (--masks)")

    def load(index: int) -> Sample:
        info = files[order[index]]
        image = _open(folder / info["file_name"])
        size = image.size[::-1]
        found: dict[str | None, np.ndarray] = {}
        valid = np.ones(size, dtype=bool)
        for annotation in by_image[order[index]]:
            if panoptic:
                ids = _segment_ids(Path(masks) / annotation["file_name"])
                valid = ids > 0
                parts = [(s["category_id"], ids == s["id"]) for s in annotation["segments_info"]]
            else:
                mask = _instance_mask(annotation["segmentation"], size)
                parts = [(annotation["category_id"], mask)]
            for category, mask in parts:
                name = categories[category]
                found[name] = found.get(name, False) | mask
        return Sample(image, found, valid)

    return MaskSet(path.stem, len(order), tuple(categories.values()), load)


def _segment_ids(path: Path) -> np.ndarray:
    channels = np.asarray(_open(path).convert("RGB")).astype(np.int64)
    return channels @ np.array([1, 256, 65536])


def _instance_mask(segmentation, size: tuple[int, int]) -> np.ndarray:
    """Polygons, or run lengths as numbers."""
    if isinstance(segmentation, list):
        from PIL import ImageDraw

        canvas = Image.new("1", size[::-1])
        for polygon in segmentation:
            ImageDraw.Draw(canvas).polygon(polygon, fill=1)
        return np.asarray(canvas)
    if not isinstance(segmentation["counts"], list):
        raise SegmentationDataError(
            "run lengths are compressed: expected numbers (pycocotools' decode gives them)"
        )
    from clipneurons.segmentation.masks import from_rle

    return from_rle(segmentation).numpy()
