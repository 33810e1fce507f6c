"""Dictionaries in the files of SAELens, ViT-Prisma and saev, made here from their descriptions."""

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from clipneurons.bundle.sparse_features import FeatureError, SparseFeatures, save_features
from clipneurons.lens.feature_files import load_features
from clipneurons.lens.features import FeatureEffects
from clipneurons.lens.lens import Lens
from tests.helpers.models import images, tiny_vit

WIDTH, LATENTS, K = 24, 10, 3


def weights(seed=0, *, out="b_dec"):
    """Tensors as all three libraries name them."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    state = {"W_enc": draw(WIDTH, LATENTS), "W_dec": draw(LATENTS, WIDTH)}
    return state | {"b_enc": draw(LATENTS), out: draw(WIDTH)}


def saelens(folder, state=None, /, **config):
    """SAELens 6: cfg.json and sae_weights.safetensors."""
    hook = config.pop("hook_name", "blocks.1.hook_resid_post")
    target = config.pop("hook_name_out", None)
    config = {
        "architecture": "topk", "d_in": WIDTH, "d_sae": LATENTS, "dtype": "float32", "k": K,
        "apply_b_dec_to_input": True, "normalize_activations": "none",
        "reshape_activations": "none", "rescale_acts_by_decoder_norm": False,
        "metadata": {"model_name": "tiny", "hook_name": hook, "hook_name_out": target},
    } | config  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file(state or weights(), folder / "sae_weights.safetensors")
    return folder


def prisma(folder, state=None, /, wrapped=False, **config):
    """ViT-Prisma: config.json and weights.pt."""
    config = {
        "model_name": "open-clip:laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K", "d_in": WIDTH,
        "hook_point_layer": 1, "layer_subtype": "hook_mlp_out", "architecture": "standard",
        "activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}, "context_size": 10,
        "normalize_activations": "layer_norm", "cls_token_only": False,
        "use_patches_only": True, "is_transcoder": False,
    } | config  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    state = state or weights()
    state = {"cfg": config, "state_dict": state} if wrapped else state
    torch.save(state, folder / "weights.pt")
    return folder


def saev(path, header, state=None):
    """saev: a line of JSON, then what torch.save writes."""
    with path.open("wb") as file:
        file.write(json.dumps(header).encode() + b"\n")
        torch.save(state or weights(), file)
    return path


def rebuilt(features, x):
    """Latents and reconstruction of tokens."""
    latents, sigma, mu = features.encode(x[None])
    return latents[0], (sigma * (latents @ features.w_dec + features.b_dec) + mu)[0]


def topk(pre):
    values, indices = torch.relu(pre).topk(K, -1)
    return torch.zeros_like(pre).scatter(-1, indices, values)


X = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(9))


def test_saelens_is_read_as_its_own_code_computes_it(tmp_path):
    state = weights()
    features = load_features(saelens(tmp_path, normalize_activations="constant_norm_rescale"))
    assert (features.block, features.site, features.model) == (1, "resid_post", "tiny")
    scale = WIDTH**0.5 / X.norm(dim=-1, keepdim=True)
    latents = topk((X * scale - state["b_dec"]) @ state["W_enc"] + state["b_enc"])
    expected = (latents @ state["W_dec"] + state["b_dec"]) / scale
    for ours, theirs in zip(rebuilt(features, X), (latents, expected), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_saelens_topk_of_decoder_norms_keeps_what_they_keep(tmp_path):
    state = weights()
    features = load_features(saelens(tmp_path, rescale_acts_by_decoder_norm=True))
    norms = state["W_dec"].norm(dim=-1)
    latents = topk(((X - state["b_dec"]) @ state["W_enc"] + state["b_enc"]) * norms)
    expected = (latents / norms) @ state["W_dec"] + state["b_dec"]
    assert torch.allclose(rebuilt(features, X)[1], expected, atol=1e-5)


def test_an_average_norm_is_folded_where_it_is_said(tmp_path):
    average = {"normalize_activations": "expected_average_only_in"}
    with pytest.raises(FeatureError, match="expected norm_scaling_factor"):
        load_features(saelens(tmp_path, **average))
    features = load_features(saelens(tmp_path, **average, norm_scaling_factor=2.0))
    state = weights()
    latents = topk((2 * X - state["b_dec"]) @ state["W_enc"] + state["b_enc"])
    expected = (latents @ state["W_dec"] + state["b_dec"]) / 2
    assert torch.allclose(rebuilt(features, X)[1], expected, atol=1e-5)


def test_batchtopk_with_a_threshold_is_jumprelu(tmp_path):
    batch = {"architecture": "matryoshka_batchtopk"}
    with pytest.raises(FeatureError, match=r"'matryoshka_batchtopk': expected .* with a threshold"):
        load_features(saelens(tmp_path, **batch))
    state = weights() | {"topk_threshold": torch.tensor(0.7, dtype=torch.float64)}
    features = load_features(saelens(tmp_path, state, **batch, apply_b_dec_to_input=False))
    pre = X @ state["W_enc"] + state["b_enc"]
    assert torch.allclose(rebuilt(features, X)[0], pre * (pre > 0.7), atol=1e-5)


def test_a_transcoder_reads_the_norms_output_and_predicts_the_mlps(tmp_path):
    hooks = {"hook_name": "blocks.1.ln2.hook_normalized", "hook_name_out": "blocks.1.hook_mlp_out"}
    plain = {"architecture": "transcoder", "apply_b_dec_to_input": False}
    features = load_features(saelens(tmp_path, **plain, **hooks))
    assert features.transcoder
    assert not features.centred
    lens = Lens(tiny_vit(layers=3, image_size=24), features=features)
    assert lens(images(1, lens.clip))[1][1].scores.shape[1] == LATENTS
    with pytest.raises(FeatureError, match=r"a transcoder of blocks\.1\.hook_mlp_in"):
        load_features(saelens(tmp_path, **plain, hook_name="blocks.1.hook_mlp_in"))
    skip = weights() | {"W_skip": torch.ones(WIDTH, WIDTH)}
    with pytest.raises(FeatureError, match="skip connection"):
        load_features(saelens(tmp_path, skip, **plain, **hooks))


@pytest.mark.parametrize("wrapped", [False, True])
def test_prisma_is_read_as_its_own_code_computes_it(tmp_path, wrapped):
    state = weights()
    features = load_features(prisma(tmp_path, wrapped=wrapped))
    assert (features.block, features.site, features.tokens) == (1, "mlp_out", "patches")
    mu = X.mean(-1, keepdim=True)
    std = (X - mu).std(-1, keepdim=True)
    latents = topk(((X - mu) / (std + 1e-5) - state["b_dec"]) @ state["W_enc"] + state["b_enc"])
    expected = (latents @ state["W_dec"] + state["b_dec"]) * std + mu
    for ours, theirs in zip(rebuilt(features, X), (latents, expected), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-3)


def test_prismas_transcoder_centres_its_input_and_has_a_bias_of_its_target(tmp_path):
    state = weights() | {"b_dec_out": torch.ones(WIDTH)}
    folder = prisma(
        tmp_path, state, is_transcoder=True, layer_subtype="ln2.hook_normalized",
        out_hook_point_layer=1, layer_out_subtype="hook_mlp_out", normalize_activations="none",
    )  # fmt: skip
    latents = topk((X - state["b_dec"]) @ state["W_enc"] + state["b_enc"])
    expected = latents @ state["W_dec"] + 1
    assert torch.allclose(rebuilt(load_features(folder), X)[1], expected, atol=1e-4)


RELU = {"cls": "Relu", "params": {"key": "relu"}}
TOP = {"cls": "TopK", "params": {"top_k": K}}
BATCH = {"cls": "BatchTopK", "params": {"top_k": K}}


@pytest.mark.parametrize(
    ("header", "activation", "centred"),
    [
        ({"d_vit": WIDTH, "exp_factor": 1, "ghost_grads": False}, "relu", True),
        ({"schema": 1, "cls": "TopK", "cfg": {"d_vit": WIDTH, "top_k": K}}, "topk", False),
        ({"schema": 1, "cfg": {"d_vit": WIDTH, "activation": TOP}}, "topk", False),
        ({"schema": 4, "cfg": {"d_model": WIDTH, "activation": RELU}}, "relu", False),
        ({"schema": 5, "cfg": {"d_model": WIDTH, "activation": TOP}, "lib": "1"}, "topk", False),
        ({"schema": 5, "cfg": {"d_model": WIDTH, "activation": BATCH}}, "jumprelu", False),
    ],
)
def test_saev_of_every_schema_is_read(tmp_path, header, activation, centred):
    state = weights()
    if activation == "jumprelu":
        state["activation.threshold"] = torch.tensor(0.5)
    path = saev(tmp_path / "sae.pt", header, state)
    with pytest.raises(FeatureError, match="does not say its block"):
        load_features(path)
    features = load_features(path, block=1)
    assert (features.activation, features.centred) == (activation, centred)
    pre = (X - centred * state["b_dec"]) @ state["W_enc"] + state["b_enc"]
    kept = {"relu": torch.relu, "topk": topk, "jumprelu": lambda p: p * (p > 0.5)}[activation](pre)
    expected = kept @ state["W_dec"] + state["b_dec"]
    assert torch.allclose(rebuilt(features, X)[1], expected, atol=1e-4)


def test_saevs_config_says_block_and_tokens(tmp_path):
    saev(tmp_path / "sae.pt", {"schema": 5, "cfg": {"activation": TOP}})
    (tmp_path / "config.json").write_text('{"train_data": {"layer": 1, "tokens": "content"}}')
    features = load_features(tmp_path)
    assert (features.block, features.tokens) == (1, "patches")
    with pytest.raises(FeatureError, match="is of block 1, not of block 0"):
        load_features(tmp_path, block=0)


def test_our_own_file_gives_the_same_dictionary_and_bytes(tmp_path):
    state = weights()
    features = SparseFeatures(
        state["W_enc"], state["b_enc"], state["W_dec"], state["b_dec"], block=1,
        site="resid_mid", activation="jumprelu", threshold=torch.rand(LATENTS),
        normalisation="layer_norm", tokens="class", model="tiny", source="made here",
    )  # fmt: skip
    again = load_features(save_features(features, tmp_path).parent)
    for name, value in vars(features).items():
        other = getattr(again, name)
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other
    first = (tmp_path / "features.safetensors").read_bytes()
    assert save_features(again, tmp_path / "b.safetensors").read_bytes() == first
    half = load_features(save_features(features, tmp_path / "half.safetensors", half=True))
    assert torch.allclose(half.w_enc, features.w_enc, atol=2e-3)


class Runs:
    """A pickle of it would make a file: nothing that is read may do so."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (type(self.path).touch, (self.path,))


def test_code_in_a_pickle_is_not_run(tmp_path):
    trace = tmp_path / "ran"
    for number, state in enumerate((Runs(trace), {"cfg": Runs(trace), "state_dict": weights()})):
        folder = tmp_path / str(number)
        folder.mkdir()
        torch.save(state, prisma(folder) / "weights.pt")
        with pytest.raises(FeatureError, match="could be code and is not opened"):
            load_features(folder)
    path = tmp_path / "sae.pt"
    path.write_bytes(b'{"schema": 5, "cfg": {}}\n' + pickle.dumps(Runs(trace), 2))
    with pytest.raises(FeatureError, match=r"sae\.pt"):
        load_features(path, block=1)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("W_dec"), "holds no W_dec, but"),
        (lambda s: s.update(W_dec=s["W_dec"].T.contiguous()), r"expected \[10, 24\]: transposed"),
        (lambda s: s["W_enc"].fill_(torch.nan), "w_enc holds values that are not finite"),
        (lambda s: s.update(b_enc=torch.ones(LATENTS - 1)), r"b_enc is \[9\], expected \[10\]"),
    ],
)
def test_damaged_weights_are_named(tmp_path, change, message):
    state = weights()
    change(state)
    with pytest.raises(FeatureError, match=message) as error:
        load_features(saelens(tmp_path, state))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hook_name": "blocks.1.attn.hook_z"}, r"blocks\.1\.attn\.hook_z: expected blocks\.N"),
        ({"hook_name": None}, "autoencoder of None"),
        ({"architecture": "gated"}, "architecture 'gated': expected standard"),
        ({"normalize_activations": "magic"}, "normalises by 'magic'"),
        ({"reshape_activations": "hook_z"}, "values of single heads"),
        ({"k": None}, "topk needs k"),
    ],
)
def test_what_cannot_be_computed_is_named(tmp_path, config, message):
    with pytest.raises(FeatureError, match=message):
        load_features(saelens(tmp_path, **config))


def test_files_of_no_format_are_named(tmp_path):
    with pytest.raises(FeatureError, match=r"expected features\.safetensors, or the files of SAE"):
        load_features(tmp_path)
    (tmp_path / "cfg.json").write_text("{")
    with pytest.raises(FeatureError, match="is not JSON"):
        load_features(tmp_path)
    (tmp_path / "cfg.json").unlink()
    (tmp_path / "features.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(FeatureError, match="no whole safetensors file"):
        load_features(tmp_path)
    save_file(weights(), tmp_path / "features.safetensors")
    with pytest.raises(FeatureError, match="does not say where its features sit"):
        load_features(tmp_path)


def test_a_dictionary_of_another_model_is_refused_with_both_named(tmp_path):
    from dataclasses import replace

    clip = tiny_vit(layers=3, image_size=24)
    features = load_features(prisma(tmp_path))
    FeatureEffects(clip, features)  # weights of the user's own: its name says nothing
    FeatureEffects(replace(clip, name="ViT-B-32", pretrained="datacomp_xl_s13b_b90k"), features)
    with pytest.raises(
        FeatureError, match=r"of open-clip:laion/CLIP-ViT-B-32-DataComp.*model is ViT-B-32 openai"
    ):
        FeatureEffects(replace(clip, name="ViT-B-32", pretrained="openai"), features)
    openai = replace(features, model="openai/clip-vit-base-patch32")
    FeatureEffects(replace(clip, name="ViT-B-32", pretrained="openai"), openai)
