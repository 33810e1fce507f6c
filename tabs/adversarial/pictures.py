"""Pictures with cues in them: painted, judged, held against baselines, explained, saved."""

from __future__ import annotations

import csv
import io
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipneurons.adversarial.methods import (
    NO_CUES,
    RANDOM_NEURONS,
    RANDOM_WORDS,
    RECORDED_EFFECTS,
    RECORDED_EMBEDDINGS,
    SIMILAR_WORDS,
)
from tabs.adversarial.cues import MAX_CUES, classifier_of, cues_of, method_of
from tabs.adversarial.offers import PICTOGRAMS, TEMPLATES, describer_of, painter_of
from tabs.server.session import BundleSession

if TYPE_CHECKING:
    from PIL import Image

    from clipneurons.adversarial.attack import Outcome
    from clipneurons.adversarial.descriptions import Description

MAX_PICTURES, BATCH = 60, 10
# Where nothing else is asked for: pictures, and cues in a picture.
PICTURES, EACH = 30, 3
CONTROLS = (RANDOM_NEURONS, SIMILAR_WORDS, RANDOM_WORDS, NO_CUES)
PURPOSE = (
    "These pictures show where a classifier leans on the company an object keeps. They are for "
    "finding and mending that (train with the object in such company); they are not for deceiving "
    "systems that others rely on."
)


@dataclass(frozen=True)
class Forged:
    """Pictures of one class pair with their verdicts, kept for the gallery, the map and the zip."""

    key: str
    true_class: str
    target_class: str
    method: str
    outcomes: tuple[Outcome, ...]


def descriptions_of(
    session: BundleSession, true_class: str, target_class: str, words: Sequence[str], count: int,
    seed: int, describer: str = TEMPLATES, cues_each: int = 3,
) -> list[Description]:  # fmt: skip
    """Descriptions of pictures with the given cues."""
    from clipneurons.adversarial.descriptions import checked_words

    if not 1 <= count <= MAX_PICTURES:
        raise ValueError(f"Between 1 and {MAX_PICTURES} pictures, please, not {count}.")
    if len(words) > MAX_CUES:
        raise ValueError(f"At most {MAX_CUES} cues, please, not {len(words)}.")
    describe = describer_of(session, describer, cues_each)
    return describe(true_class, target_class, checked_words(words), int(count), int(seed))


def forge(
    session: BundleSession, true_class: str, target_class: str, descriptions: Sequence[Description],
    seed: int, painter: str = PICTOGRAMS,
) -> Iterator[list[Outcome]]:  # fmt: skip
    """Paint and judge, a few pictures at a time."""
    from clipneurons.adversarial.attack import attack, unchecked
    from clipneurons.adversarial.image_generator import picture_seeds

    paint = painter_of(session, painter)
    exact = painter == PICTOGRAMS

    def check(paintings) -> list[str]:
        return [paint.check(painting, true_class, target_class) for painting in paintings]

    yield from attack(
        classifier_of(session, true_class, target_class), paint, descriptions,
        picture_seeds(len(descriptions), int(seed)), check=check if exact else unchecked,
        batch_size=BATCH if exact else 1,
    )  # fmt: skip


def controls(
    session: BundleSession, true_class: str, target_class: str, count: int, seed: int, *,
    progress: Callable[[float], object] = lambda _share: None, cues_each: int = 3, **options,
) -> dict[str, object]:  # fmt: skip
    """Success rates of the baselines with the same number of pictures, from templates.

    None with a painter that takes seconds for a picture.
    """
    from clipneurons.adversarial.attack import success_rate

    rates, painter = {}, options.get("painter", PICTOGRAMS)
    if painter != PICTOGRAMS:
        return rates
    # Whoever looks at pictures is compared with the same pictures read without the neurons.
    asked = method_of(session, options.get("way", ""), options.get("neurons", 0))
    seen = (RECORDED_EMBEDDINGS,) if asked == RECORDED_EFFECTS else ()
    methods = (*seen, *CONTROLS)
    for done, method in enumerate(methods):
        words = cues_of(
            session, true_class, target_class, method=method, seed=seed, **options
        ).words  # fmt: skip
        descriptions = descriptions_of(
            session, true_class, target_class, words, count, seed, cues_each=cues_each
        )
        batches = forge(session, true_class, target_class, descriptions, seed, painter)
        rates[method] = success_rate([outcome for batch in batches for outcome in batch])
        progress((done + 1) / len(methods))
    return rates


def mistake_overlay(session: BundleSession, forged: Forged, index: int) -> Image.Image:
    """A picture with the patches that speak for the target class in colour."""
    import torch

    from clipneurons.adversarial.zero_shot import mistake_maps
    from clipneurons.images.heatmap import overlay

    image = forged.outcomes[index].image
    classifier = classifier_of(session, forged.true_class, forged.target_class)
    heat = mistake_maps(session.lens, [image], classifier.difference)[0].clamp_min(0)
    heat = heat / heat.max().clamp_min(1e-12)
    shown = image.resize((256, 256))
    heat = torch.nn.functional.interpolate(heat[None, None], size=(256, 256), mode="bilinear")
    return overlay(shown, heat[0, 0], 0.55)


def zip_file(forged: Forged) -> str:
    """Pictures, their descriptions and verdicts, and what they are for, in a zip."""
    folder = Path(tempfile.mkdtemp(prefix="clipneurons-"))
    file = folder / "adversarial.zip"
    lines = io.StringIO()
    writer = csv.writer(lines)
    writer.writerow(["file", "description", "cues", "shows", "read wrongly", "margin", "seed"])
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, outcome in enumerate(forged.outcomes):
            buffer = io.BytesIO()
            outcome.image.save(buffer, "PNG")
            name = f"{number:03d}.png"
            archive.writestr(name, buffer.getvalue())
            writer.writerow([
                name, outcome.description.text, "|".join(outcome.description.cues),
                outcome.presence, outcome.fooled, f"{outcome.margin:.4f}", outcome.seed,
            ])  # fmt: skip
        archive.writestr("pictures.csv", lines.getvalue())
        title = f"{forged.true_class} read as {forged.target_class}, cues: {forged.method}\n\n"
        archive.writestr("README.txt", f"{title}{PURPOSE}\n")
    return str(file)
