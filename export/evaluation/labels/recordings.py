"""One pass over images for the test of labels: what units do, and what a judge sees there.

The judge of composed scenes and of the photographs that ship is what is known of them; of other
images another CLIP. Every batch is kept on disk as it comes, so that a killed run goes on from
there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm

from clipneurons.bundle.bundle import Bundle
from clipneurons.labels.evidence import Recordings
from clipneurons.labels.properties import listed
from clipneurons.lens.contributions import MeanEffect
from clipneurons.lens.lens import Lens
from clipneurons.models.clip import ClipModel
from clipneurons.text.embedding import embed_texts
from clipneurons.text.untrained_words import untrained_words
from export.common.errors import UserError
from export.common.kept_batches import KeptBatches
from export.data.dataset import Source
from export.data.loader import batches

TRUTH = "truth"


class Judge(Protocol):
    """Who says what an image shows; knows nothing of the units.

    `see` gives the rows that are kept on disk, `scores` what they say of every text. `unknown` are
    texts of which the judge can say nothing.
    """

    name: str
    unknown: list[str]

    def see(
        self, source: Source, number: int, ids: list[int], size: int, workers: int
    ) -> Float[Tensor, "image space"]: ...

    def scores(self, seen: Float[Tensor, "image space"]) -> Float[Tensor, "image text"]: ...

    def present(self, scores: Float[Tensor, "image text"]) -> Bool[Tensor, "image text"]: ...


class TruthJudge:
    """What is known of the images (`Source.truth`): 1 where a text is true of one, else 0."""

    name = "ground truth"

    def __init__(self, source: Any, texts: list[str]) -> None:
        if not hasattr(source, "truth"):
            raise UserError(
                f"of {source.name} nobody knows what is true: give another CLIP as judge, such as"
                " --judge artifacts/mini-rn, or --judge ViT-B-32 --judge-pretrained openai"
            )
        self._truth = source.truth(texts)
        self.unknown = [t for t, known in zip(texts, self._truth.known, strict=True) if not known]

    def see(
        self, source: Source, number: int, ids: list[int], size: int, workers: int
    ) -> Float[Tensor, "image text"]:
        """What is true of the images of a batch."""
        return torch.from_numpy(self._truth.rows(ids))

    def scores(self, seen: Float[Tensor, "image text"]) -> Float[Tensor, "image text"]:
        """What was seen."""
        return seen

    def present(self, scores: Float[Tensor, "image text"]) -> Bool[Tensor, "image text"]:
        """What is true."""
        return scores > 0.5


class ClipJudge:
    """Another CLIP: its softmax over all texts, at the scale that it was trained with."""

    def __init__(self, clip: ClipModel, texts: list[str]) -> None:
        self.name = f"{Path(clip.name).name} {clip.pretrained or ''}".strip()
        self.unknown = untrained_words(clip, texts)
        self._clip, self._scale = clip, float(clip.model.logit_scale.detach().exp())
        with tqdm(total=len(texts), desc="judge's texts", unit="texts", disable=None) as bar:
            self._texts = embed_texts(clip, texts, progress=bar.update).cpu()

    def see(
        self, source: Source, number: int, ids: list[int], size: int, workers: int
    ) -> Float[Tensor, "image embed"]:
        """Embeddings of a batch's images."""
        (batch,) = batches(source, self._clip.preprocess, [number], size, workers)
        if batch.images is None or batch.ids.tolist() != ids:
            raise UserError(f"{source.name} changed while it was read: run the command again")
        return normalize(self._clip.encode_image(batch.images), dim=1).cpu()

    def scores(self, seen: Float[Tensor, "image embed"]) -> Float[Tensor, "image text"]:
        """Probabilities of the texts."""
        return (self._scale * seen @ self._texts.T).softmax(1)

    def present(self, scores: Float[Tensor, "image text"]) -> Bool[Tensor, "image text"]:
        """The texts that it would list first."""
        return listed(scores)


class UnitEffects:
    """Reads ⟨φ_n(I) − b_n, r_n⟩ of all units of all layers, in the bundle's order."""

    def __init__(self, bundle: Bundle, clip: ClipModel) -> None:
        self._lens = Lens.of_bundle(clip, bundle)
        self._directions = {la: a.directions.to(clip.device) for la, a in bundle.layers.items()}
        self._means = {
            layer: MeanEffect.from_dense(arrays.means.to(clip.device), self._lens.directions[layer])
            for layer, arrays in bundle.layers.items()
        }

    def __call__(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> tuple[Float[Tensor, "image embed"], Float[Tensor, "image unit"]]:
        """Embeddings of unit norm, and the effects."""
        embeddings, contributions = self._lens(images)
        effects = [
            contributions[layer].project(directions, self._means[layer])
            for layer, directions in self._directions.items()
        ]
        return normalize(embeddings, dim=1), torch.cat(effects, dim=1)


@torch.no_grad()
def record(
    bundle: Bundle, clip: ClipModel, judge: Judge, source: Source, work: KeptBatches, size: int,
    workers: int, prefix: str = "",
) -> Recordings:  # fmt: skip
    """Effects of all units of all layers, in the bundle's order, and what the judge saw.

    `prefix` tells the batches of several sources apart.
    """
    read = UnitEffects(bundle, clip)
    numbers = range(-(-len(source) // size))
    missing = [number for number in numbers if work.get(f"{prefix}model", number) is None]
    with tqdm(total=len(source), desc="model", unit="images", disable=None) as bar:
        bar.update(len(source) - len(missing) * size if missing else len(source))
        for batch in batches(source, clip.preprocess, missing, size, workers):
            kept = {"ids": batch.ids}
            if batch.images is not None:
                kept["embeddings"], kept["effects"] = read(batch.images.to(clip.device))
            work.put(f"{prefix}model", batch.number, kept)
            bar.update(len(batch.ids) + len(batch.skipped))
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    with tqdm(total=len(source), desc="judge", unit="images", disable=None) as bar:
        for number in numbers:
            own = work.get(f"{prefix}model", number).tensors
            ids = own["ids"].tolist()
            if ids:
                state = work.get(f"{prefix}judge", number) or work.put(
                    f"{prefix}judge",
                    number,
                    {"seen": judge.see(source, number, ids, size, workers)},
                )
                parts.append((own["effects"], own["embeddings"], state.tensors["seen"]))
            bar.update(size)
    if not parts:
        raise UserError(f"none of the images of {source.name} can be read")
    effects, embeddings, seen = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    scores = judge.scores(seen)
    return Recordings(effects, embeddings, scores, judge.present(scores), seen)
