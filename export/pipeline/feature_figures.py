"""What a dictionary of sparse features explains of a model's tokens on a source of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from clipneurons.bundle.sparse_features import SparseFeatures
from clipneurons.lens.features import FeatureSite, explained_variance
from clipneurons.models.hooks import record_activations
from export.common.errors import UserError
from export.data.dataset import Source
from export.data.loader import batches

# Images of a run that the figures are taken on; share of tokens above which a latent is dense.
SAMPLE, DENSE = 256, 0.1
_BATCH, _TOKENS = 32, 4096


@dataclass(frozen=True)
class Tokens:
    """Inputs and targets of the tokens of many images; the same tensor for an autoencoder."""

    inputs: Float[Tensor, "token width"]
    targets: Float[Tensor, "token width"]

    def __len__(self) -> int:
        return len(self.inputs)

    def part(self, rows: slice) -> Tokens:
        """Some of the tokens."""
        inputs, same = self.inputs[rows], self.targets is self.inputs
        return Tokens(inputs, inputs if same else self.targets[rows])


@dataclass(frozen=True)
class FeatureFigures:
    """Over tokens that a dictionary describes.

    explained_variance  share of the target's variance that it rebuilds
    active              latents of a token, mean
    dense, silent       latents active in more than a tenth of the tokens, and in none
    """

    explained_variance: float
    active: float
    dense: int
    silent: int


@torch.no_grad()
def read_tokens(
    site: FeatureSite, source: Source, numbers: Sequence[int], workers: int = 1
) -> Tokens:
    """The tokens that a dictionary of this site describes, in half precision.

    ``numbers``: batches of 32 images.
    """
    clip, inputs, targets = site.clip, [], []
    loader = batches(source, clip.preprocess, numbers, _BATCH, workers)
    with tqdm(total=len(numbers) * _BATCH, desc="activations", unit="images", disable=None) as bar:
        for loaded in loader:
            if loaded.images is not None:
                with record_activations(clip.visual, site.recorded) as tensors:
                    clip.encode_image(loaded.images)
                read = site.inputs(tensors)
                chosen = site.described(read)[:, 0]
                inputs.append(read[:, chosen].flatten(0, 1).half())
                if site.name == "mlp_in":
                    targets.append(site.target(tensors)[:, chosen].flatten(0, 1).half())
            bar.update(_BATCH)
    if not inputs:
        raise UserError(f"no image of {source.name} can be read")
    joined = torch.cat(inputs)
    return Tokens(joined, torch.cat(targets) if targets else joined)


def all_batches(source: Source) -> range:
    """Numbers of all the batches that `read_tokens` reads."""
    return range(-(-len(source) // _BATCH))


@torch.no_grad()
def measure(features: SparseFeatures, tokens: Tokens) -> FeatureFigures:
    """What a dictionary explains of some tokens, and how many latents fire."""
    rebuilt, fired = [], torch.zeros(features.latents, device=tokens.inputs.device)
    for inputs in tokens.inputs.split(_TOKENS):
        latents, sigma, mu = features.encode(inputs.float()[None])
        rebuilt.append((sigma * (latents @ features.w_dec + features.b_dec) + mu)[0])
        fired += (latents > 0).sum((0, 1))
    return FeatureFigures(
        explained_variance(tokens.targets.float(), torch.cat(rebuilt)),
        float(fired.sum() / len(tokens)),
        int((fired > DENSE * len(tokens)).sum()),
        int((fired == 0).sum()),
    )


def measure_on(
    features: SparseFeatures, site: FeatureSite, source: Source, workers: int = 1
) -> FeatureFigures:
    """The figures on a sample of images, spread over the source."""
    numbers = all_batches(source)
    step = max(1, len(numbers) * _BATCH // SAMPLE)
    return measure(features, read_tokens(site, source, numbers[::step], workers))
