"""A dictionary of sparse features, and our file of it: `features.safetensors`.

Tensors, and settings as JSON in the header of the same file; nothing is ever unpickled.
`clipneurons.lens.features` has the formulas, `clipneurons.lens.feature_files` reads the files of
other libraries.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from clipneurons.bundle.config import FEATURES, BundleError
from clipneurons.bundle.folders import write_atomic

SETTINGS = {
    "site": ("resid_pre", "resid_mid", "resid_post", "mlp_in", "mlp_out", "last_stage"),
    "activation": ("relu", "topk", "jumprelu"),
    "normalisation": ("none", "layer_norm", "unit_norm"),
    "tokens": ("all", "patches", "class"),
}
_TENSORS = ("w_enc", "b_enc", "w_dec", "b_dec", "threshold")
_HEADER = "sparse_features"
# Types that a setting may have in JSON, by the field's type.
_JSON = {"int": (int,), "int | None": (int, type(None)), "str": (str,), "bool": (bool,)}
# Added to the standard deviation by the library whose dictionaries normalise so.
_EPS = 1e-5


class FeatureError(BundleError):
    """A dictionary that cannot be read, or that does not fit the model; the message says why."""


@dataclass(frozen=True, eq=False)
class SparseFeatures:
    """A dictionary of sparse features: the weights of an SAE or a transcoder, and where it sits.

    Args:
        w_enc, b_enc: encoder.
        w_dec, b_dec: decoder, a row for each latent.
        block: the block it belongs to, from 0; a ResNet's last stage is 4.
        site: the tensor that the encoder reads. ``mlp_in`` is what the MLP reads, normalised, and
            makes it a transcoder that predicts ``mlp_out``.
        activation: ``relu``; ``topk`` keeps the ``k`` largest of a token; ``jumprelu`` keeps what
            exceeds ``threshold`` (BatchTopK once trained).
        normalisation: ``layer_norm`` subtracts each token's mean and divides by its standard
            deviation; ``unit_norm`` scales each token to norm sqrt(X).
        centred: whether the encoder reads x̂ − b_dec.
        tokens: the tokens that it describes.
        model, source: names of the model it was trained on and of where it came from.

    Raises:
        FeatureError: shapes that do not fit each other, values that are not finite, an unknown
            setting.
    """

    w_enc: Float[Tensor, "_ _"]
    b_enc: Float[Tensor, " _"]
    w_dec: Float[Tensor, "_ _"]
    b_dec: Float[Tensor, " _"]
    block: int
    site: str
    activation: str = "relu"
    k: int | None = None
    threshold: Float[Tensor, " _"] | None = None
    normalisation: str = "none"
    centred: bool = False
    tokens: str = "all"
    model: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        for name, axes in (("w_enc", 2), ("w_dec", 2), ("b_dec", 1)):
            if getattr(self, name).ndim != axes:
                shape = list(getattr(self, name).shape)
                raise FeatureError(f"{name} is {shape}, expected {axes} axes")
        latents = self.w_enc.shape[1]
        expected = {"b_enc": (latents,), "w_dec": (latents, len(self.b_dec))}
        if self.threshold is not None:
            expected["threshold"] = (latents,)
        for name, shape in expected.items():
            found = tuple(getattr(self, name).shape)
            if found != shape:
                hint = ": transposed?" if found == shape[::-1] and len(shape) == 2 else ""
                raise FeatureError(f"{name} is {list(found)}, expected {list(shape)}{hint}")
        for name, known in SETTINGS.items():
            if getattr(self, name) not in known:
                words = ", ".join(known)
                raise FeatureError(f"{name} {getattr(self, name)!r}: expected one of {words}")
        if self.activation == "topk" and not (self.k and 0 < self.k <= latents):
            raise FeatureError(f"topk needs k from 1 to {latents}, not {self.k}")
        if self.activation == "jumprelu" and self.threshold is None:
            raise FeatureError("jumprelu needs a threshold for each latent")
        if self.centred and self.transcoder:
            raise FeatureError("a transcoder's decoder bias is of its target, not of its site")
        for name in ("w_enc", "b_enc", "w_dec", "b_dec", "threshold"):
            value = getattr(self, name)
            if value is not None and not bool(value.isfinite().all()):
                raise FeatureError(f"{name} holds values that are not finite")

    @property
    def latents(self) -> int:
        """Number of latents."""
        return self.w_enc.shape[1]

    @property
    def transcoder(self) -> bool:
        """Whether it predicts the MLP's output from its input."""
        return self.site == "mlp_in"

    def encode(
        self, site: Float[Tensor, "image token site"]
    ) -> tuple[
        Float[Tensor, "image token latent"],
        Float[Tensor, "image token 1"],
        Float[Tensor, "image token 1"],
    ]:
        """f, and the σ and μ that a reconstruction is scaled back with."""
        mu, sigma = torch.zeros_like(site[..., :1]), torch.ones_like(site[..., :1])
        if self.normalisation == "layer_norm":
            mu = site.mean(-1, keepdim=True)
            sigma = (site - mu).std(-1, keepdim=True) + _EPS
        elif self.normalisation == "unit_norm":
            sigma = site.norm(dim=-1, keepdim=True) / site.shape[-1] ** 0.5
        inputs = (site - mu) / sigma
        if self.centred:
            inputs = inputs - self.b_dec
        pre = inputs @ self.w_enc + self.b_enc  # [image, token, latent]
        latents = torch.relu(pre)
        if self.activation == "topk":
            values, indices = latents.topk(self.k, dim=-1)
            latents = torch.zeros_like(latents).scatter_(-1, indices, values)
        elif self.activation == "jumprelu":
            latents = latents * (pre > self.threshold)
        return latents, sigma, mu

    def to(self, device: torch.device) -> SparseFeatures:
        """The same dictionary on a device, in float32."""
        tensors = {
            name: None if getattr(self, name) is None else getattr(self, name).to(device).float()
            for name in ("w_enc", "b_enc", "w_dec", "b_dec", "threshold")
        }
        return SparseFeatures(**(vars(self) | tensors))


def save_features(features: SparseFeatures, path: str | Path, half: bool = False) -> Path:
    """Write a dictionary to a file, or into a folder as `features.safetensors`.

    ``half``: weights in float16. They are float32 in memory again.
    """
    path = Path(path)
    path = path if path.suffix == ".safetensors" else path / FEATURES
    write_atomic(path, features_to_bytes(features, half))
    return path


def features_to_bytes(features: SparseFeatures, half: bool = False) -> bytes:
    """The bytes of `features.safetensors`; the same dictionary gives the same bytes."""
    values = {field.name: getattr(features, field.name) for field in fields(features)}
    tensors = {
        name: (values[name].half() if half else values[name].float()).cpu().contiguous()
        for name in _TENSORS
        if values[name] is not None
    }
    settings = {name: value for name, value in values.items() if name not in _TENSORS}
    return save(tensors, {_HEADER: json.dumps(settings, sort_keys=True)})


def features_from_bytes(data: bytes, name: str = FEATURES) -> SparseFeatures:
    """The inverse of `features_to_bytes`.

    Raises:
        FeatureError: a file that is none of ours, or damaged.
    """
    try:
        tensors = {key: value.float() for key, value in load(data).items()}
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size]).get("__metadata__", {})
        settings = json.loads(header.get(_HEADER, "null"))
    except (SafetensorError, ValueError, RecursionError) as error:
        raise FeatureError(f"{name} is no whole safetensors file: {error}") from None
    if not isinstance(settings, dict):
        raise FeatureError(f"{name} does not say where its features sit: it is no file of ours")
    types = {field.name: field.type for field in fields(SparseFeatures)}
    required = {field.name for field in fields(SparseFeatures) if field.default is MISSING}
    values = settings | tensors
    if missing := sorted(required - values.keys()):
        raise FeatureError(f"{name} holds no {', '.join(missing)}")
    for key, value in settings.items():
        if types.get(key) not in _JSON or type(value) not in _JSON[types[key]]:
            raise FeatureError(f"{name}: {key} is {value!r}, expected {types.get(key, 'no such')}")
    if unknown := sorted(tensors.keys() - {*_TENSORS}):
        raise FeatureError(f"{name} holds {', '.join(unknown)}, which no dictionary has")
    return SparseFeatures(**values)
