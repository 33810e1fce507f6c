"""Small seeded models and bundles that tests share."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import open_clip
import torch
from PIL import Image
from safetensors.torch import save

from clipneurons.bundle.bundle import Bundle, save_bundle
from clipneurons.bundle.config import BundleConfig, DataSet, Pool
from clipneurons.bundle.labels import NAMES, LayerLabels
from clipneurons.bundle.layer_arrays import LayerArrays
from clipneurons.bundle.thumbnails import Examples

VIT = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 4, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 1},
}
RESNET = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 1},
}
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
WORDS = ("cat", "dog", "red car", "sailing boat", "green leaf", "a house", "night sky", "apple pie")


def tiny_model_folder(folder: Path, cfg: dict = VIT, seed: int = 0) -> Path:
    """A seeded open_clip model as a `local-dir:` folder (config and safetensors)."""
    return _write(_model_files(json.dumps(cfg), seed), folder)


@cache
def _model_files(cfg: str, seed: int) -> dict[str, bytes]:
    """The folder's files, made once: most tests want the same ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.CLIP(**json.loads(cfg))
        with torch.no_grad():  # open_clip's small initial biases would hide a forgotten bias
            for name, parameter in model.named_parameters():
                if name.endswith("bias") or "ln_" in name:
                    parameter.add_(torch.randn_like(parameter) * 0.2)
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    config = {"model_cfg": json.loads(cfg), "preprocess_cfg": preprocess}
    tensors = {k: v.contiguous().clone() for k, v in model.state_dict().items()}
    return {
        "open_clip_config.json": json.dumps(config).encode(),
        "open_clip_model.safetensors": save(tensors),
    }


def _write(files: dict[str, bytes], folder: Path) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def tiny_clip(folder: Path, cfg: dict = VIT, seed: int = 0):
    """`load_clip` of `tiny_model_folder`, on the CPU."""
    from clipneurons.models.clip import load_clip

    return load_clip(str(tiny_model_folder(folder, cfg, seed)), device="cpu")


def tiny_bundle(
    layers: tuple[int, ...] = (1, 2),
    neurons: int = 16,
    heads: int = 2,
    embed: int = 24,
    top_k: int = 6,
    components: int = 3,
    images: int = 20,
    kind: str = "vit",
    clip=None,
    seed: int = 0,
) -> Bundle:
    """A consistent bundle of random numbers; with a model, one that says it belongs to it.

    For a ResNet a unit is a neuron-head pair, so there are `neurons * heads` units.
    """
    generator = torch.Generator().manual_seed(seed)
    if clip is not None:
        kind, neurons, heads, embed = clip.kind, clip.neurons, clip.heads, clip.embed_dim
    per_neuron = heads if kind == "resnet" else 1
    if kind == "resnet":
        layers = (4,)
    edges = tuple(float(10 ** (e / 4)) for e in range(-12, 5))
    unit_rows = torch.nn.functional.normalize
    texts = [*WORDS]
    embeddings = unit_rows(torch.randn(len(texts), embed, generator=generator), dim=1)

    def layer() -> LayerArrays:
        n = neurons * per_neuron
        norms = torch.rand(n, images, generator=generator).sort(descending=True)
        coefficients = torch.randn(n, components, generator=generator)
        order = coefficients.abs().argsort(dim=1, descending=True)
        indices = torch.rand(n, len(texts), generator=generator).argsort(dim=1)[:, :components]
        counts = torch.zeros(n, len(edges) - 1, dtype=torch.int32)
        counts[:, 5] = images
        return LayerArrays(
            directions=unit_rows(torch.randn(n, embed, generator=generator), dim=1),
            means=torch.randn(n, embed, generator=generator),
            percentile=norms.values[:, 0].clone(),
            threshold=norms.values[:, top_k - 1].clone(),
            explained_variance=torch.rand(n, generator=generator),
            top_norms=norms.values[:, :top_k].clone(),
            top_activating_images=norms.indices[:, :top_k].to(torch.int32).contiguous(),
            norm_histogram=counts,
            participation_ratio=torch.rand(n, generator=generator),
            indices=indices.to(torch.int32).contiguous(),
            coefficients=coefficients.gather(1, order),
        )

    config = BundleConfig(
        kind=kind,
        model="." if clip is None else clip.name,
        pretrained=None if clip is None else clip.pretrained,
        weights_sha256="0" * 64 if clip is None else clip.sha256(),
        activation=("relu" if kind == "resnet" else "gelu") if clip is None else clip.activation,
        image_size=(32, 32) if clip is None else clip.image_size,
        image_mean=MEAN if clip is None else tuple(clip.image_mean),
        image_std=STD if clip is None else tuple(clip.image_std),
        embed_dim=embed,
        heads=heads,
        layers=layers,
        units_per_neuron=per_neuron,
        top_k=top_k,
        percentile=98.0,
        shared_bias=False,
        components=components,
        centred_pool=False,
        norm_edges=edges,
        pool=Pool("words", "tests", "MIT", len(texts), "0" * 64),
        data=DataSet("random colours", images, 0, "0" * 64, ("cat", "dog")),
        versions={"clipneurons": "0"},
    )
    pictures = {i: tiny_webp(i) for i in range(images)}
    captions = {i: f"colour {i}" for i in range(images)}
    return Bundle(
        config=config,
        layers={index: layer() for index in layers},
        texts=texts,
        text_embeddings=embeddings,
        examples=Examples.build(pictures, captions),
        metrics={"fidelity": {}},
        card="# A tiny bundle\n",
    )


def tiny_labels(bundle: Bundle, seed: int = 0) -> dict[int, LayerLabels]:
    """Labels of random numbers for every layer; all explain enough, if they are told apart."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for layer, arrays in bundle.layers.items():
        units = len(arrays.directions)
        columns = {name: torch.rand(units, generator=generator) for name in NAMES}
        columns["simulation_low"] = 0.5 + 0.5 * columns["simulation_low"]
        columns["specificity"] = 0.95 + 0.05 * columns["specificity"]
        columns |= {
            "indices": arrays.indices[:, :2].contiguous(),
            "coefficients": torch.tensor([[2.0, -1.0]]).repeat(units, 1),
            "concept": torch.zeros(units, dtype=torch.int32),
        }
        found[layer] = LayerLabels(**columns)
    return found


def tiny_bundle_folder(folder: Path, **options) -> Path:
    """`tiny_bundle` saved beside the weights of the tiny model it says it belongs to."""
    return _write(_bundle_files(**options), folder)


@cache
def _bundle_files(**options) -> dict[str, bytes]:
    with TemporaryDirectory() as name:
        folder = Path(name)
        clip = tiny_clip(folder, RESNET if options.get("kind") == "resnet" else VIT)
        bundle = tiny_bundle(clip=clip, **options)
        save_bundle(replace(bundle, config=replace(bundle.config, model=".")), folder)
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def tiny_webp(seed: int, size: int = 16) -> bytes:
    """An image of a colour of its own, darker towards the top."""
    colour = Image.new("RGB", (size, size), (seed * 37 % 256, seed * 91 % 256, seed * 53 % 256))
    shade = Image.linear_gradient("L").resize((size, size)).convert("RGB")
    image = Image.blend(colour, shade, 0.3)
    buffer = BytesIO()
    image.save(buffer, "WEBP", quality=80)
    return buffer.getvalue()
