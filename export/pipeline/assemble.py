"""From statistics of the effects to a bundle: phrases, thumbnails, figures and card."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from clipneurons.analysis.effect_statistics import UnitStatistics
from clipneurons.analysis.omp import by_magnitude, omp
from clipneurons.analysis.streaming.norm_histogram import NORM_BINS
from clipneurons.bundle.bundle import Bundle, LayerArrays
from clipneurons.bundle.config import BundleConfig, DataSet, Pool
from clipneurons.models.clip import ClipModel
from clipneurons.text.embedding import centre, embed_texts
from clipneurons.text.pools import TextPool
from export.pipeline.checkpoints import State
from export.pipeline.inputs import Inputs, weights_sha256
from export.pipeline.passes import MeanPass
from export.pipeline.thumbnails import choose, gallery

PACKAGES = ("torch", "open_clip_torch", "numpy", "pillow", "safetensors")


def assemble(
    inputs: Inputs,
    model: str,
    merged: State,
    statistics: Mapping[int, UnitStatistics],
    embeddings: Float[Tensor, "text embed"],
) -> Bundle:
    """The bundle, with neither figures nor card; `model` is what `config.json` calls the model."""
    settings, source, pool = inputs.settings, inputs.source, inputs.pool
    clip, whole = inputs.clip, MeanPass.from_state(merged)
    half = settings.storage == "float16"
    embeddings = rounded(embeddings.cpu(), half)
    top = next(iter(statistics.values())).top_norms.shape[1]
    config = BundleConfig(
        kind=clip.kind,
        model=model,
        pretrained=settings.pretrained,
        weights_sha256=weights_sha256(clip, settings),
        activation=clip.activation,
        image_size=tuple(clip.image_size),
        image_mean=tuple(clip.image_mean),
        image_std=tuple(clip.image_std),
        embed_dim=clip.embed_dim,
        heads=clip.heads,
        layers=tuple(inputs.lens.layers),
        units_per_neuron=clip.heads if clip.kind == "resnet" else 1,
        top_k=top,
        percentile=settings.percentile,
        shared_bias=settings.shared_bias,
        components=min(settings.components, len(pool)),
        centred_pool=settings.centred_pool,
        norm_edges=tuple(float(edge) for edge in NORM_BINS),
        pool=Pool(pool.name, pool.source, pool.licence, len(pool), pool.sha256),
        data=DataSet(
            source.name, whole.count, len(whole.skipped), whole.fingerprint, source.class_names
        ),
        storage=settings.storage,
        pooling=clip.anatomy.pooling.kind if clip.kind == "vit" else "attention",
        texts=clip.tokenizer_notes,
        versions={name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
    )
    layers = {
        layer: layer_arrays(mine, embeddings, config, clip.device, f"phrases of layer {layer}")
        for layer, mine in statistics.items()
    }
    ranked = choose(statistics, settings.gallery)
    examples = gallery(clip, source, ranked, int(settings.gallery_mb * 1e6))
    return Bundle(config, layers, list(pool.texts), embeddings, examples, metrics={})


def layer_arrays(
    statistics: UnitStatistics,
    embeddings: Float[Tensor, "text embed"],
    config: BundleConfig,
    device: torch.device,
    what: str,
) -> LayerArrays:
    """What a bundle keeps of one layer, on the CPU, rounded as it will be on disk."""
    half = config.storage == "float16"
    directions = rounded(statistics.directions.cpu(), half)
    indices, coefficients = decompose(
        directions, embeddings, config.components, config.centred_pool, device, what
    )
    top_norms = rounded(statistics.top_norms.cpu(), half)
    return LayerArrays(
        directions=directions,
        means=rounded(statistics.means.cpu(), half),
        percentile=statistics.percentile.cpu(),
        threshold=statistics.threshold.cpu().clone(),
        explained_variance=statistics.explained_variance.cpu(),
        top_norms=top_norms,
        top_activating_images=statistics.top_activating_images.cpu().int(),
        norm_histogram=statistics.norm_histogram.cpu(),
        participation_ratio=statistics.participation_ratio.cpu(),
        indices=indices,
        coefficients=coefficients,
    )


def decompose(
    directions: Float[Tensor, "unit embed"],
    embeddings: Float[Tensor, "text embed"],
    components: int,
    centred: bool,
    device: torch.device,
    what: str,
) -> tuple[Tensor, Tensor]:
    """Phrases of each direction: indices (int32) and coefficients, largest coefficient first."""
    # Rows that were rounded to float16 have a norm of 1 only to 1e-4.
    texts = centre(embeddings) if centred else torch.nn.functional.normalize(embeddings, dim=1)
    with tqdm(total=len(directions), desc=what, unit="units", disable=None) as bar:
        indices, coefficients = omp(
            directions.to(device), texts.to(device), components, progress=bar.update
        )
    indices, coefficients = by_magnitude(indices, coefficients)
    return indices.int().cpu(), coefficients.float().cpu()


def embed_pool(clip: ClipModel, pool: TextPool, folder: Path) -> Float[Tensor, "text embed"]:
    """Embeddings of the pool, kept in the work folder as they come."""
    path, step = folder / "texts.safetensors", 4096
    kept = State.load(path)
    done = [] if kept is None or kept.note["pool"] != pool.sha256 else [kept.tensors["texts"]]
    first = sum(map(len, done))
    with tqdm(total=len(pool), initial=first, desc="texts", unit="texts", disable=None) as bar:
        for start in range(first, len(pool), step):
            texts = pool.texts[start : start + step]
            done.append(embed_texts(clip, texts, progress=bar.update).cpu())
            State({"texts": torch.cat(done)}, {"pool": pool.sha256}).save(path)
    return torch.cat(done)


def rounded(values: Tensor, half: bool) -> Tensor:
    """Float32 values as float16 storage will hold them, so that memory and disk agree."""
    return values.half().float() if half else values.float()


def with_results(bundle: Bundle, metrics: dict, card: str) -> Bundle:
    """The bundle with its figures and card."""
    return replace(bundle, metrics=metrics, card=card)
