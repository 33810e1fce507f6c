"""Effects of a bundle's units in images of its texts, recorded as cues for adversarial images."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm

from clipneurons.adversarial.composer import pictogram_composer
from clipneurons.adversarial.cue_recorder import IMAGES, record_cues
from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.cue_recordings import CueRecordings
from clipneurons.lens.lens import Lens
from clipneurons.models.clip import ClipModel
from export.common.errors import UserError


def measure(bundle: Bundle, clip: ClipModel) -> tuple[dict[str, Any], CueRecordings]:
    """How many cues were drawn how often, and the recorded effects.

    Raises:
        UserError: none of the bundle's texts can be drawn, or there are no pictograms.
    """
    try:
        composer = pictogram_composer(max(clip.image_size))
    except FileNotFoundError as error:
        raise UserError(f"cues need pictograms to draw: {error}") from None
    drawn = {composer.concept(text) for text in bundle.texts} - {None}
    if not drawn:
        raise UserError("there is a pictogram of none of the bundle's texts")
    print(f"cues     {len(drawn):,} of the texts are drawn, {IMAGES * len(drawn):,} images")
    lens = Lens.of_bundle(clip, bundle)
    with tqdm(total=len(drawn), desc="images", unit="cues", leave=False, disable=None) as bar:
        recordings = record_cues(
            bundle, lens, composer, composer.concept, composer.concepts,
            progress=lambda share: bar.update(round(share * len(drawn)) - bar.n),
        )  # fmt: skip
    return {"cues": len(recordings.embeddings), "images": IMAGES}, recordings


def in_words(figures: dict[str, Any]) -> str:
    """One line for the terminal."""
    return f"cues     {figures['cues']:,} recorded, in {figures['images']} images each"
