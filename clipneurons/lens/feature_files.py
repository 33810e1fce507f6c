"""Dictionaries of sparse features in the files of those who train them.

    format      files of a folder                       weights
    ours        features.safetensors                    safetensors, settings in its header
    SAELens 6   cfg.json + sae_weights.safetensors      safetensors
    ViT-Prisma  config.json + weights.pt                state dict, or {"cfg", "state_dict"}
    saev        sae.pt (a config.json may lie beside)   one line of JSON, then a state dict

All four name ``W_enc [X, K]``, ``W_dec [K, Y]``, ``b_enc [K]`` and ``b_dec``. No code is run:
pickles are read as weights only, and what holds more is refused. What differs is folded into the
weights, so that one encoder serves all (`SparseFeatures.encode`). What this library cannot compute
exactly is refused by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipneurons.bundle.config import FEATURES
from clipneurons.bundle.hub import download
from clipneurons.bundle.sparse_features import FeatureError, SparseFeatures, features_from_bytes
from clipneurons.models.weights import read_file, read_header, read_pickle

_SAELENS = ("cfg.json", "sae_weights.safetensors")
_CONFIG = "config.json"
_HOOK = re.compile(r"blocks\.(\d+)\.(.+)")
_SITES = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    "hook_mlp_out": "mlp_out",
    "ln2.hook_normalized": "mlp_in",
    # What TransformerLens calls the MLP's input stands before the norm.
    "hook_mlp_in": "resid_mid",
}
_NORMALISATIONS = {
    "none": "none", None: "none",
    "layer_norm": "layer_norm", "constant_norm_rescale": "unit_norm",
}  # fmt: skip
_AVERAGE = "expected_average_only_in"
# Of SAELens, of its BatchTopK in training, of saev's BatchTopK.
_THRESHOLDS = ("threshold", "topk_threshold", "activation.threshold")


def load_features(
    source: str | Path, block: int | None = None, cache_dir: str | Path | None = None
) -> SparseFeatures:
    """Read a dictionary of ours, SAELens, ViT-Prisma or saev.

    Args:
        source: a folder, a file, or ``user/name[@revision][:folder]`` on the Hugging Face Hub.
        block: the block it belongs to, where its files do not say it (saev).

    Raises:
        FeatureError: files of none of these formats, damaged ones, pickles that hold code,
            settings that cannot be computed here.
        BundleError: a Hub repository that cannot be had.
    """
    path, name = Path(source), Path(source).name
    if not path.exists():
        repository, _, inside = str(source).partition(":")
        prefix = f"{inside}/" if inside else ""
        wanted = [prefix + name for name in (FEATURES, *_SAELENS, _CONFIG, "*.pt")]
        snapshot, commit = download(repository, wanted, cache_dir)
        path, name = snapshot / inside, f"{repository.partition('@')[0]}@{commit[:12]}"
        name += f":{inside}" if inside else ""
    try:
        features = _read(path, block)
    except FeatureError:
        raise
    except (ValueError, RuntimeError) as error:  # of a pickle, of shapes that do not fit
        raise FeatureError(f"{error}".splitlines()[0]) from None
    if block not in (None, features.block):
        raise FeatureError(f"{source} is of block {features.block}, not of block {block}")
    return replace(features, source=features.source or name)


def _read(path: Path, block: int | None) -> SparseFeatures:
    """Choose the format by the files that are there."""
    folder = path if path.is_dir() else path.parent
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    ours = [p for p in files if p.suffix == ".safetensors" and p.name != _SAELENS[1]]
    if path.is_dir():
        ours = [p for p in ours if p.name == FEATURES]
    if ours:
        return features_from_bytes(ours[0].read_bytes(), str(ours[0]))
    if (folder / _SAELENS[0]).is_file():
        return _saelens(folder)
    pickles = [p for p in files if p.suffix == ".pt"]
    if len(pickles) != 1:
        held = f"{len(pickles)} files .pt: name one" if pickles else "none of these"
        raise FeatureError(
            f"{path}: expected {FEATURES}, or the files of SAELens ({' and '.join(_SAELENS)}),"
            f" ViT-Prisma ({_CONFIG} and weights.pt) or saev (sae.pt); it holds {held}"
        )
    config = _json(folder / _CONFIG) if (folder / _CONFIG).is_file() else {}
    read_header(pickles[0])
    with pickles[0].open("rb") as file:
        if file.read(1) == b"{":
            return _saev(pickles[0], config, block)
    return _prisma(pickles[0], config)


def _saelens(folder: Path) -> SparseFeatures:
    """SAELens 6: `sae_lens.saes`."""
    config, weights = _json(folder / _SAELENS[0]), folder / _SAELENS[1]
    if not weights.is_file():
        raise FeatureError(f"{folder} holds {_SAELENS[0]} but no {_SAELENS[1]}")
    state = read_file(weights)
    said = config | (config.get("metadata") or {})
    architecture = config.get("architecture", "standard")
    activation = {
        "standard": "relu", "topk": "topk", "jumprelu": "jumprelu", "transcoder": "relu",
        "jumprelu_transcoder": "jumprelu",
    }.get(architecture)  # fmt: skip
    if "batchtopk" in architecture and {*_THRESHOLDS} & state.keys():
        activation = "jumprelu"
    if activation is None:
        raise FeatureError(
            f"{folder} is of architecture {architecture!r}: expected standard, topk, jumprelu, a"
            " transcoder of these, or batchtopk with a threshold"
        )
    if config.get("reshape_activations", "none") != "none":
        raise FeatureError(f"{folder} reads {said.get('hook_name')}, the values of single heads")
    transcoder = "transcoder" in architecture
    block, site = _placed(folder, said.get("hook_name"), transcoder, said.get("hook_name_out"))
    normalisation = config.get("normalize_activations", "none")
    if transcoder and normalisation not in ("none", None):
        raise FeatureError(f"{folder} is a transcoder of inputs normalised by {normalisation!r},"
            " whose outputs are not: expected none")  # fmt: skip
    if normalisation == _AVERAGE:
        state, normalisation = _scaled(folder, state, said.get("norm_scaling_factor")), "none"
    if config.get("rescale_acts_by_decoder_norm"):
        state = _unit_decoder(folder, state)
    return _features(
        folder, state, block=block, site=site, activation=activation, k=config.get("k"),
        normalisation=_normalisation(folder, normalisation),
        centred=bool(config.get("apply_b_dec_to_input", not transcoder)),
        tokens="all", model=str(said.get("model_name") or ""),
    )  # fmt: skip


def _prisma(path: Path, config: Mapping[str, Any]) -> SparseFeatures:
    """ViT-Prisma: `vit_prisma.sae`."""
    content = read_pickle(path)
    inside = content.get("cfg") if isinstance(content, dict) else None
    config = config or (inside if isinstance(inside, dict) else {})
    if not config:
        raise FeatureError(f"{path} has no {_CONFIG} beside it, which says where it sits")
    state = read_file(path)
    if config.get("architecture", "standard") != "standard":
        raise FeatureError(f"{path} is of architecture {config['architecture']!r}: expected"
            " standard")  # fmt: skip
    activation = config.get("activation_fn_str", "relu")
    if activation not in ("relu", "topk"):
        raise FeatureError(f"{path} has the activation {activation!r}: expected relu or topk")
    layer = config.get("hook_point_layer")
    hook = f"blocks.{layer[0] if isinstance(layer, list) else layer}.{config.get('layer_subtype')}"
    transcoder = bool(config.get("is_transcoder", False))
    target = f"blocks.{config.get('out_hook_point_layer')}.{config.get('layer_out_subtype')}"
    block, site = _placed(path, hook, transcoder, target)
    if transcoder:
        _check_keys(path, state, ("W_enc", "b_enc", "b_dec", "b_dec_out"))
        # Its b_dec centres the input, b_dec_out is the target's.
        b_enc = state["b_enc"].float() - state["b_dec"].float() @ state["W_enc"].float()
        state = state | {"b_enc": b_enc, "b_dec": state["b_dec_out"]}
    tokens = "class" if config.get("cls_token_only") else "all"
    return _features(
        path, state, block=block, site=site, activation=activation,
        k=(config.get("activation_fn_kwargs") or {}).get("k"),
        normalisation=_normalisation(path, config.get("normalize_activations", "none")),
        centred=not transcoder, tokens="patches" if config.get("use_patches_only") else tokens,
        model=str(config.get("model_name") or ""),
    )  # fmt: skip


def _saev(path: Path, config: Mapping[str, Any], block: int | None) -> SparseFeatures:
    """saev: `saev.nn.modeling`, schemas 1 to 5, and the header before there were schemas."""
    with path.open("rb") as file:
        header = _parsed(path, file.readline(2**20))
        state = read_pickle(path, BytesIO(file.read()))
    schema = header.get("schema")
    if schema not in (None, 1, 2, 3, 4, 5):
        raise FeatureError(f"{path} has schema {schema!r} of saev: expected 1 to 5, or none")
    settings = header if schema is None else header.get("cfg") or {}
    activation = settings.get("activation") or {}
    kind = activation.get("cls") or (header.get("cls") if schema == 1 else None) or "Relu"
    values = activation.get("params") or settings
    if kind in ("SparseAutoencoderConfig", "MatryoshkaSparseAutoencoderConfig"):
        kind = "Relu"
    kinds = {"Relu": "relu", "TopK": "topk", "BatchTopK": "jumprelu"}
    if kind not in kinds:
        raise FeatureError(f"{path} has the activation {kind!r}: expected {', '.join(kinds)}")
    data = config.get("train_data") or config.get("data") or {}
    layer = data.get("layer") if isinstance(data, dict) else None
    # A negative number counts from the end of a model that the file does not name.
    layer = layer if isinstance(layer, int) and layer >= 0 else block
    if layer is None:
        raise FeatureError(f"{path} does not say its block: give it, as in --layers 9")
    tokens = str(data.get("tokens", data.get("patches", "all")))
    return _features(
        path, state, block=layer, site="resid_post", activation=kinds[kind],
        k=values.get("top_k"), normalisation="none",
        # Only files before there were schemas are of encoders that read x - b_dec.
        centred=schema is None,
        tokens={"content": "patches", "patches": "patches", "special": "class", "cls": "class"}
        .get(tokens, "all"),
        model="",
    )  # fmt: skip


def _features(path: Path, state: Any, **settings: Any) -> SparseFeatures:
    """A dictionary of the tensors that all formats name alike."""
    if not isinstance(state, dict):
        raise FeatureError(f"{path} holds a {type(state).__name__}: expected a state dict")
    _check_keys(path, state, ("W_enc", "W_dec", "b_enc", "b_dec"))
    if "W_skip" in state and bool(state["W_skip"].any()):
        raise FeatureError(f"{path} has a skip connection, which no latent carries")
    latents = len(state["b_enc"])
    threshold = None
    if settings["activation"] == "jumprelu":
        named = [state[name] for name in _THRESHOLDS if name in state]
        if not named:
            raise FeatureError(
                f"{path} keeps the largest latents of a whole batch, or those above a threshold,"
                " and holds no threshold: expected one, which makes each token stand by itself"
            )
        threshold = named[0].float().expand(latents).clone()
    k = settings.pop("k", None)
    try:
        return SparseFeatures(
            state["W_enc"].float(), state["b_enc"].float(), state["W_dec"].float(),
            state["b_dec"].float(), threshold=threshold,
            k=min(int(k), latents) if settings["activation"] == "topk" and k else None,
            **settings,
        )  # fmt: skip
    except FeatureError as error:
        raise FeatureError(f"{path}: {error}") from None


def _placed(path: Path, hook: Any, transcoder: bool, target: Any) -> tuple[int, str]:
    """Block and site of a hook's name; of a transcoder with the hook that it predicts."""
    match = _HOOK.fullmatch(str(hook))
    site = _SITES.get(match[2]) if match else None
    if site is None or (site == "mlp_in") != transcoder:
        which = "a transcoder" if transcoder else "an autoencoder"
        expected = ["ln2.hook_normalized"] if transcoder else list(_SITES)[:4]
        raise FeatureError(f"{path} is {which} of {hook}: expected blocks.N. and one of"
            f" {', '.join(expected)}")  # fmt: skip
    if transcoder and str(target) not in ("None", f"blocks.{match[1]}.hook_mlp_out"):
        raise FeatureError(
            f"{path} predicts {target} from {hook}: expected blocks.{match[1]}.hook_mlp_out"
        )
    return int(match[1]), site


def _normalisation(path: Path, name: Any) -> str:
    if name not in _NORMALISATIONS:
        hint = ""
        if name == _AVERAGE:
            hint = ", or that with its norm_scaling_factor"
        raise FeatureError(f"{path} normalises by {name!r}: expected none, layer_norm or"
            f" constant_norm_rescale{hint}")  # fmt: skip
    return _NORMALISATIONS[name]


def _scaled(path: Path, state: dict[str, Tensor], factor: Any) -> dict[str, Tensor]:
    """Weights of an encoder that reads factor · x, as weights of one that reads x."""
    if not isinstance(factor, int | float) or not factor > 0:
        raise FeatureError(
            f"{path} divides its inputs by their average norm ({_AVERAGE}) and does not say it:"
            " expected norm_scaling_factor in its settings"
        )
    _check_keys(path, state, ("W_enc", "W_dec", "b_dec"))
    return state | {
        "W_enc": state["W_enc"].float() * factor,
        "W_dec": state["W_dec"].float() / factor,
        "b_dec": state["b_dec"].float() / factor,
    }


def _unit_decoder(path: Path, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Latents in units of what they write, which is how such a TopK compares them."""
    _check_keys(path, state, ("W_enc", "W_dec", "b_enc"))
    norms = state["W_dec"].float().norm(dim=-1)
    return state | {
        "W_enc": state["W_enc"].float() * norms,
        "b_enc": state["b_enc"].float() * norms,
        "W_dec": state["W_dec"].float() / norms[:, None],
    }


def _check_keys(path: Path, state: Mapping[str, Any], names: tuple[str, ...]) -> None:
    missing = [name for name in names if not isinstance(state.get(name), torch.Tensor)]
    if missing:
        raise FeatureError(
            f"{path} holds no {', '.join(missing)}, but {', '.join(map(str, list(state)[:6]))}"
        )


def _json(path: Path) -> dict[str, Any]:
    return _parsed(path, path.read_bytes())


def _parsed(path: Path, text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FeatureError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise FeatureError(f"{path} should hold an object, holds {type(value).__name__}")
    return value
