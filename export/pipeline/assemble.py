"""From statistics of the effects to a bundle, without figures and card."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.config import BundleConfig, DataSet, FeatureNote, Pool
from clipneurons.bundle.layer_arrays import LayerArrays
from clipneurons.statistics.effect_statistics import UnitStatistics
from clipneurons.statistics.streaming.norm_histogram import NORM_BINS
from export.common.pursuit import Pursuit, rounded
from export.pipeline.gallery import choose, make_gallery
from export.pipeline.inputs import Inputs, weights_sha256
from export.pipeline.passes import MeanPass

PACKAGES = ("torch", "open_clip_torch", "numpy", "pillow", "safetensors")


def assemble(
    inputs: Inputs,
    model: str,
    means: MeanPass,
    statistics: Mapping[int, UnitStatistics],
    embeddings: Float[Tensor, "text embed"],
    pursuits: Mapping[int, Pursuit],
) -> Bundle:
    """The bundle, with neither figures nor card; `model` is what `config.json` calls the model."""
    settings, source, pool = inputs.settings, inputs.source, inputs.pool
    clip = inputs.clip
    top = next(iter(statistics.values())).top_norms.shape[1]
    config = BundleConfig(
        kind=clip.kind,
        model=model,
        pretrained=_portable(settings.pretrained),
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
            source.name, means.count, len(means.skipped), means.fingerprint, source.class_names
        ),
        storage=settings.storage,
        pooling=clip.anatomy.pooling.kind if clip.kind == "vit" else "attention",
        texts=clip.tokenizer_notes,
        quick_gelu=clip.quick_gelu,
        interpolation=clip.visual.preprocess_cfg["interpolation"],
        resize_mode=clip.visual.preprocess_cfg["resize_mode"],
        self_check=inputs.self_check.figure if inputs.self_check else None,
        features=_note(inputs, statistics),
        versions={name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
    )
    layers = {
        layer: layer_arrays(layer_statistics, pursuits[layer], config)
        for layer, layer_statistics in statistics.items()
    }
    ranked = choose(statistics, settings.gallery)
    examples = make_gallery(clip, source, ranked, int(settings.gallery_mb * 1e6))
    features = inputs.features and inputs.features.to(torch.device("cpu"))
    return Bundle(
        config, layers, list(pool.texts), embeddings, examples, metrics={}, features=features
    )


def _note(inputs: Inputs, statistics: Mapping[int, UnitStatistics]) -> FeatureNote | None:
    """Where a run's features come from and what they explain; None for neurons."""
    features = inputs.features
    if features is None:
        return None
    (units,) = statistics.values()
    figures = inputs.feature_figures
    # A latent of a ResNet is dead where none of its heads carries anything.
    alive = units.directions.any(1).view(features.latents, -1).any(1)
    return FeatureNote(
        features.block, features.site, features.tokens, features.latents, features.source,
        inputs.features_sha256, figures.explained_variance, figures.active, figures.dense,
        dead=int((~alive).sum()),
    )  # fmt: skip


def layer_arrays(statistics: UnitStatistics, pursuit: Pursuit, config: BundleConfig) -> LayerArrays:
    """What a bundle keeps of one layer, on the CPU, rounded as it will be on disk."""
    half = config.storage == "float16"
    indices, coefficients = pursuit.strongest_first(config.components)
    return LayerArrays(
        directions=rounded(statistics.directions.cpu(), half),
        means=rounded(statistics.means.cpu(), half),
        percentile=statistics.percentile.cpu(),
        threshold=statistics.threshold.cpu().clone(),
        explained_variance=statistics.explained_variance.cpu(),
        top_norms=rounded(statistics.top_norms.cpu(), half),
        top_activating_images=statistics.top_activating_images.cpu().int(),
        norm_histogram=statistics.norm_histogram.cpu(),
        participation_ratio=statistics.participation_ratio.cpu(),
        indices=indices,
        coefficients=coefficients,
    )


def _portable(pretrained: str | None) -> str | None:
    """A weights file by its whole path, so that the app finds it from any folder."""
    is_file = pretrained is not None and Path(pretrained).is_file()
    return str(Path(pretrained).resolve()) if is_file else pretrained
