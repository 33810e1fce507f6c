"""A model with its bundle: reads concepts, masks, edits and units of images, and sets of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from clipneurons.adversarial import cues
from clipneurons.adversarial.cue_request import FEW_CUES, CueFilter, CueRequest, default_method
from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.config import check_clip
from clipneurons.concepts.concepts import TOP, ConceptReader
from clipneurons.concepts.image_concepts import (
    ImageConcepts,
    UnitOnImage,
    read_image,
    units_on_image,
)
from clipneurons.edit.edit import Edit, UnitFactor
from clipneurons.edit.reading import EditReader, EditReading
from clipneurons.lens.lens import Lens
from clipneurons.models.clip import ClipModel
from clipneurons.models.inputs import ImageLike, open_image
from clipneurons.models.preprocess import share_seen
from clipneurons.progress import Progress, part, reported
from clipneurons.segmentation.image_masks import ImageMasks
from clipneurons.segmentation.masks import THRESHOLD
from clipneurons.segmentation.patch_attribution import MapMaker, patch_attribution
from clipneurons.segmentation.presence import Line, line_of, presences
from clipneurons.segmentation.segment import check_names, segment
from clipneurons.shift import report
from clipneurons.shift.comparison import EmbeddedTextPool, check_level
from clipneurons.shift.profile import Profile, Profiler
from clipneurons.text.class_names import Similarity
from clipneurons.text.embedding import embed_texts
from clipneurons.text.similarity import best_similarity

# Thumbnails of a comparison.
_THUMBNAIL = 128


class Reader:
    """A model and the bundle made with it, ready to read images.

    What depends on the model alone is computed once, when it is first needed.

    Args:
        clip: the model, see `load_clip`.
        bundle: the bundle made with it, see `load_bundle`.

    Raises:
        BundleMismatch: a bundle of another model; the message names both.

    Example:
        >>> reader = cn.Reader(cn.load_clip("ViT-B-32", "openai"), cn.load_bundle("user/name"))
        >>> reader.concepts("cat.jpg")
    """

    def __init__(self, clip: ClipModel, bundle: Bundle) -> None:
        check_clip(bundle.config, clip)
        self.clip, self.bundle = clip, bundle

    def __repr__(self) -> str:
        return f"Reader({self.clip.name}, {len(self.bundle.layers)} layers)"

    # -- one image

    def concepts(self, image: ImageLike, top: int = TOP) -> ImageConcepts:
        """The texts that units write into an image, and where.

        Args:
            image: a path or a PIL image; the model reads what `clip.preprocess` keeps of it.
            top: number of concepts, 1 to 50.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a file that is no image, a bundle with the shared bias.

        Example:
            >>> concepts = reader.concepts("cat.jpg")
            >>> concepts.concepts[0].text, concepts.neurons[0].layer
        """
        picture = open_image(image)
        seen = share_seen(self.clip, picture.size)
        return read_image(self.concept_reader, self.clip.preprocess(picture), top, seen)

    def top_units(self, image: ImageLike, top: int = 12) -> tuple[UnitOnImage, ...]:
        """The units that an image activates, the largest effects first.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a file that is no image, a bundle with the shared bias.

        Example:
            >>> unit = reader.top_units("cat.jpg")[0]
            >>> reader.bundle.unit(unit.layer, unit.unit)
        """
        pixels = self.clip.preprocess(open_image(image))
        return units_on_image(self.concept_reader, self.concept_reader(pixels[None])[1], top)

    def segment(
        self,
        image: ImageLike,
        names: Sequence[str],
        *,
        threshold: float = THRESHOLD,
        anyway: bool = False,
    ) -> ImageMasks:
        """Find what words name in an image: whether it is there, and where.

        Args:
            image: a path or a PIL image, of any size and shape.
            names: what to look for.
            threshold: of the masks, 0 to 1.
            anyway: give a mask to names that are not in the image, too.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a file that is no image, no name, a threshold outside 0 to 1.

        Example:
            >>> masks = reader.segment("cat.jpg", ["cat", "grass"])
            >>> masks.mask("cat")  # [height, width]
        """
        if isinstance(names, str):
            raise ValueError(f"names={names!r}: expected a list of names, such as [{names!r}]")
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold={threshold}: expected 0 to 1")
        names, picture = check_names(names), open_image(image)
        result = segment(self.clip, picture, names, maps=self.maps, others=self.contrast)
        found = presences(
            self.clip, picture, names, self.bundle.text_embeddings, self.presence_line
        )
        small = picture.resize(result.scores.shape[:0:-1])
        return ImageMasks(small, result, tuple(found), anyway, threshold)

    def edit(
        self,
        image: ImageLike,
        factors: Mapping[tuple[int, int], float] | Edit,
        classes: Sequence[str],
        wanted: str = "",
    ) -> EditReading:
        """How an image is classified before and after units are ablated or rescaled.

        Args:
            image: a path or a PIL image.
            factors: of units by ``(layer, unit)``: 0 ablates a unit's effect to its mean over the
                data, 1 leaves it, 2 doubles what differs from the mean; or a saved `Edit`.
            classes: names of the classes to tell apart, at least two.
            wanted: the class that is held against the first; by default the runner-up.

        Raises:
            FileNotFoundError: no such file.
            EditError: a unit that the bundle does not have, a factor that is no finite number.
            ValueError: a file that is no image, fewer than two classes.

        Example:
            >>> reading = reader.edit("cat.jpg", {(9, 115): 0}, classes=["cat", "dog"])
            >>> reading.before(), reading.result()
        """
        picture = open_image(image)
        if not isinstance(factors, Edit):
            units = tuple(UnitFactor(*place, float(value)) for place, value in factors.items())
            factors = Edit(self.bundle.config.weights_sha256, units)
        pixels = self.clip.preprocess(picture)[None]
        return self.edit_reader.read(pixels, list(check_names(classes)), wanted, factors)

    # -- computed once

    @cached_property
    def lens(self) -> Lens:
        """The lens on the bundle's units."""
        return Lens.of_bundle(self.clip, self.bundle)

    @cached_property
    def concept_reader(self) -> ConceptReader:
        """What reads effects and concepts of preprocessed images.

        Raises:
            ValueError: a bundle with the shared bias.
        """
        return ConceptReader(self.lens, self.bundle)

    @cached_property
    def edit_reader(self) -> EditReader:
        """What reads preprocessed images under edits."""
        return EditReader(self.lens, self.bundle)

    @cached_property
    def profiler(self) -> Profiler:
        """What sets of images are compared by."""
        return Profiler(self.lens, self.bundle)

    @cached_property
    def text_pool(self) -> EmbeddedTextPool:
        """The bundle's texts, in which changes are read."""
        pool = EmbeddedTextPool.of(self.bundle)
        pool.centred  # noqa: B018  (computed here, not in front of an answer)
        return pool

    @cached_property
    def similarity(self) -> Similarity:
        """What finds synonyms: the sentence encoder where it is installed."""
        return best_similarity(self.clip, self.bundle.text_embeddings)

    @cached_property
    def maps(self) -> MapMaker:
        """What computes the heat maps of `segment`."""
        return patch_attribution(self.clip)

    @cached_property
    def contrast(self) -> Float[Tensor, "text embed"]:
        """What names are held against: the bundle's class names, else its texts."""
        names = self.bundle.config.data.class_names
        if len(names) < 2:
            return self.bundle.text_embeddings
        return embed_texts(self.clip, list(names), "photo")

    @cached_property
    def presence_line(self) -> Line:
        """The score from which a name counts as found, as the bundle says it."""
        return line_of(self.bundle.metrics)


def compare_sets(
    reader: Reader,
    reference: str | Path | Sequence[ImageLike],
    new: str | Path | Sequence[ImageLike],
    *,
    level: float = report.LEVEL,
    permutations: int = 300,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> report.SetComparison:
    """Whether two sets of images differ, and if so in which texts, units, pixels and places.

    Args:
        reader: the model and its bundle.
        reference, new: a folder, or a list of paths or PIL images; at least two images each.
        level: largest p-value that is significant.
        permutations: of the test; more give smaller p-values.
        seed: of the permutations.
        progress: told (share, text), or True for a bar.

    Raises:
        FileNotFoundError: no such folder or file.
        ValueError: fewer than two images on a side, a file that is no image, a level that the
            permutations cannot reach.

    Example:
        >>> comparison = cn.compare_sets(reader, "last year/", "this year/")
        >>> comparison.significant, comparison.more[:3]
    """
    check_level(level, permutations)
    sides = [_images_of(images, name) for images, name in ((reference, "reference"), (new, "new"))]
    total, sets, start = sum(map(len, sides)), [], 0.0
    with reported(progress) as tell:
        for images in sides:
            end = start + 0.9 * len(images) / total
            sets.append(_profiled(reader.profiler, images, part(tell, start, end)))
            start = end
        tell(start, "Comparing the sets")
        result = report.compare_sets(
            reader.profiler, reader.text_pool, *sets, level=level, permutations=permutations,
            seed=seed,
        )  # fmt: skip
        shown = tuple(_thumbnail(sets[1].image(number)) for number in result.changed_images)
        tell(1.0, "Done")
    return replace(result, shown=shown)


def find_cues(
    reader: Reader,
    true_class: str,
    target_class: str,
    *,
    method: str | None = None,
    count: int = FEW_CUES,
    blocked: Sequence[str] = (),
    layers: Sequence[int] | None = None,
) -> cues.Cues:
    """Texts whose objects should turn one class into another: spurious cues of a classifier.

    Args:
        reader: the model and its bundle.
        true_class: what an image shows.
        target_class: what it should be read as.
        method: ``"second-order"`` (the paper's) or ``"recorded effects"``; by default the latter
            where the bundle has recordings of its cues.
        count: number of cues toward the target class, and of those away from it.
        blocked: words that no cue may contain.
        layers: layers whose units take part; by default all of the bundle.

    Raises:
        ValueError: empty or equal classes, an unknown method or layer, a method that needs
            recordings which the bundle does not have.

    Example:
        >>> cues = cn.find_cues(reader, "cat", "dog")
        >>> cues.texts
    """
    request = CueRequest(
        true_class,
        target_class,
        layers=layers,
        count=count,
        method=method or default_method(reader.bundle),
        rules=CueFilter(reader.similarity, tuple(blocked)),
    )
    return cues.find_cues(reader.bundle, reader.clip, request)


def _images_of(images: str | Path | Sequence[ImageLike], side: str) -> list[ImageLike]:
    """The images of a side: those of a folder by name, or a list as it is."""
    if isinstance(images, str | Path):
        folder = Path(images)
        if not folder.is_dir():
            raise FileNotFoundError(f"{side}: {folder} is no folder; expected one or a list")
        known = Image.registered_extensions()
        images = sorted(path for path in folder.rglob("*") if path.suffix.lower() in known)
    if len(images) < 2:
        raise ValueError(f"{side}: expected at least two images, got {len(images)}")
    return list(images)


def _profiled(
    profiler: Profiler, images: list[ImageLike], progress: Progress, batch: int = 32
) -> report.ImageSet:
    """The profile of images, which are opened a batch at a time."""
    profiles = []
    for first in range(0, len(images), batch):
        progress(first / len(images), "Reading images")
        pictures = [open_image(image) for image in images[first : first + batch]]
        profiles.append(profiler.of_images(pictures, batch))
    return report.ImageSet(Profile.cat(profiles), lambda number: open_image(images[number]))


def _thumbnail(image: Image.Image) -> Image.Image:
    small = image.copy()
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return small
