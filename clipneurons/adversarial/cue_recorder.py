"""Δ_j^n: what the units of a model do when a cue is drawn beside an object, measured on images."""

import random
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from clipneurons.adversarial.descriptions import Description
from clipneurons.adversarial.image_generator import ImageGenerator
from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.cue_recordings import LOUDEST, CueRecordings, LayerRecordings
from clipneurons.lens.lens import Lens

# Images of each cue, every one beside another object.
IMAGES = 8
_BATCH = 64


def record_cues(
    bundle: Bundle,
    lens: Lens,
    generator: ImageGenerator,
    drawn: Callable[[str], str | None],
    companions: Sequence[str],
    seed: int = 0,
    count: int = IMAGES,
    progress: Callable[[float], object] = lambda share: None,
) -> CueRecordings:
    """Draw every text that can be drawn beside the same few objects and read the model.

    Any cue draws the model from what it stands beside, so that images without one would say
    little: a cue is compared with the mean of all cues.

    Args:
        bundle: its texts are the cues, its directions what effects are measured along.
        lens: reads the bundle's layers.
        generator: draws the objects, and the cues beside them.
        drawn: the name of what the generator draws for a text, None where it cannot.
        companions: names of what may stand beside a cue, drawn by chance.
        seed: of the choice of companions and of the images.
        count: number of images of a cue.
        progress: called with the share that is done.

    Raises:
        ValueError: nothing can be drawn, or no images are asked for.
    """
    names = [drawn(text) for text in bundle.texts]
    cues = list(dict.fromkeys(name for name in names if name is not None))
    if not cues or not companions or count < 1:
        raise ValueError(
            "expected texts that can be drawn, objects beside them and at least one image, "
            f"got {len(cues)}, {len(companions)} and {count}"
        )
    rng = random.Random(f"cue recordings {seed}")
    beside = rng.choices(list(companions), k=count)
    seeds = [rng.getrandbits(31) for _ in beside]

    def images_of(cue: str) -> Iterator[Image.Image]:
        for companion, image_seed in zip(beside, seeds, strict=True):
            for drawn_image in generator(companion, [Description("", (cue,))], [image_seed]):
                yield drawn_image.image

    means: list[list[Tensor]] = []
    per_batch = max(1, _BATCH // count)
    for start in range(0, len(cues), per_batch):
        part = cues[start : start + per_batch]
        read = _read(bundle, lens, [image for cue in part for image in images_of(cue)])
        means.append([x.unflatten(0, (len(part), -1)).mean(1) for x in read])
        progress((start + len(part)) / len(cues))
    every = [torch.cat(parts) for parts in zip(*means, strict=True)]
    *effects, embeddings = (rows - rows.mean(0) for rows in every)
    number = {cue: row for row, cue in enumerate(cues)}
    return CueRecordings(
        row=torch.tensor([-1 if name is None else number[name] for name in names]),
        layers={
            layer: _summary(layer_effects, arrays.directions.cpu())
            for layer_effects, (layer, arrays) in zip(effects, bundle.layers.items(), strict=True)
        },
        embeddings=embeddings,
    )


def _summary(
    effects: Float[Tensor, "cue unit"], directions: Float[Tensor, "unit embed"]
) -> LayerRecordings:
    """What all units write together, and those that a cue moves most."""
    order = effects.abs().argsort(dim=1, descending=True, stable=True)[:, :LOUDEST]
    return LayerRecordings(effects @ directions, order.int(), effects.gather(1, order))


@torch.no_grad()
def _read(bundle: Bundle, lens: Lens, images: Sequence[Image.Image]) -> list[Tensor]:
    """⟨φ_n(I), r_n⟩ of every unit, layer by layer, and last the unit-norm embeddings."""
    batch = torch.stack([lens.clip.preprocess(image.convert("RGB")) for image in images])
    embedded, contributions = lens(batch.to(lens.clip.device))
    effects = [
        contributions[layer].project(arrays.directions.to(embedded)).cpu()
        for layer, arrays in bundle.layers.items()
    ]
    return [*effects, torch.nn.functional.normalize(embedded, dim=-1).cpu()]
