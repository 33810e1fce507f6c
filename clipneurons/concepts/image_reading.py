"""One image as its neurons read it, as data: concepts with their places, the neurons behind them,
and beside them what the model itself says."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from clipneurons.concepts.concepts import WAYS, ConceptReader, top_concepts
from clipneurons.text.synonym_groups import synonym_groups

TOP, NEURONS, SAID, CANDIDATES = 10, 12, 3, 40


def read_image(
    reader: ConceptReader, image: Image.Image, way: str, top: int = TOP, neurons: int = NEURONS
) -> dict:
    """Concepts of an image in JSON values.

    ``concepts``: the first ``top`` texts with weight and map (values in [0, 1] by row and column);
    ``neurons``: the strongest activated ones; ``activated``: how many there are; ``others``: the
    first texts by each other way of weighing, and by the cosine of the whole embedding
    (``nearest_texts``); ``clip_says``: the last with synonyms together, the nearest first;
    ``in_short``: the first concepts of different meanings.

    Raises `ValueError` for another way than those of `ConceptReader.weights`.
    """
    texts = reader.bundle.texts
    representation, effects = reader(reader.lens.clip.preprocess(image)[None])
    weights = {kind: reader.weights(effects, kind)[0] for kind in {way, *WAYS}}
    concepts = top_concepts(weights[way], texts, max(1, min(int(top), 50)))
    places = {text: i for i, text in enumerate(texts)}
    maps = reader.patch_maps(effects, [places[text] for text, _ in concepts], way=way).clamp_min(0)
    cosines = reader.nearest_texts(representation)[0]
    return {
        "concepts": [
            {"text": text, "weight": weight, "map": _rounded(map_ / map_.amax().clamp_min(1e-12))}
            for (text, weight), map_ in zip(concepts, maps, strict=True)
        ],
        "neurons": [
            {
                "layer": one.layer, "unit": one.unit, "norm": one.norm,
                "projection": one.projection, "over_threshold": one.excess,
            }
            for one in reader.activated(effects, top=neurons)
        ],
        "percentile": reader.bundle.config.percentile,
        "activated": sum(int(mine.activated.sum()) for mine in effects.values()),
        "others": {
            other: pairs(top_concepts(weights[other], texts, TOP)) for other in WAYS if other != way
        }
        | {"nearest_texts": pairs(top_concepts(cosines, texts, TOP))},
        "in_short": _in_short(reader, [places[text] for text, _ in concepts]),
        "clip_says": _clip_says(reader, cosines),
        "way": way,
    }  # fmt: skip


def _in_short(reader: ConceptReader, concepts: Sequence[int]) -> list[str]:
    """The first concepts that mean different things."""
    texts = reader.bundle.texts
    groups = synonym_groups(concepts, texts, reader.unit_texts, SAID)
    return [texts[first] for first, *_ in groups]


def _clip_says(reader: ConceptReader, cosines: Float[Tensor, " text"]) -> list[dict]:
    """The nearest texts, each with the synonyms that are near too."""
    texts = reader.bundle.texts
    near = cosines.topk(min(CANDIDATES, len(texts))).indices.tolist()
    return [
        {"texts": [texts[i] for i in group], "cosine": cosines[group[0]].item()}
        for group in synonym_groups(near, texts, reader.unit_texts, SAID)
    ]


def as_seen(reader: ConceptReader, image: Image.Image) -> Image.Image:
    """The square of an image that the model sees, as a picture."""
    from torchvision.transforms.functional import to_pil_image

    config = reader.bundle.config
    mean, std = (torch.tensor(v)[:, None, None] for v in (config.image_mean, config.image_std))
    pixels = reader.lens.clip.preprocess(image)
    return to_pil_image((pixels * std + mean).clamp(0, 1))


def pairs(found: Sequence[tuple[str, float]]) -> list[dict]:
    """Texts with weights as JSON values."""
    return [{"text": text, "weight": weight} for text, weight in found]


def _rounded(map_: Float[Tensor, "row column"]) -> list[list[float]]:
    return [[round(value, 3) for value in row] for row in map_.tolist()]
