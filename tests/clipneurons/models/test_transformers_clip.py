"""Checkpoints of transformers: the same effects as open_clip's, from folders and from the Hub."""

import json
from functools import partial

import open_clip
import pytest
import timm
import torch
import transformers
from huggingface_hub import constants
from open_clip.timm_model import TimmModel
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from clipneurons.lens.lens import Lens
from clipneurons.models.anatomy import UnsupportedModel
from clipneurons.models.clip import load_clip
from clipneurons.models.transformers_clip import TransformersClip
from export.__main__ import main
from tests.helpers.families import FAMILIES, transformers_model
from tests.helpers.hub_standin import Repository, serve
from tests.helpers.models import as_clip, images, tiny_vit
from tests.helpers.tiny import tiny_model_folder

WORDS = ["<start>", "<end>", "<unk>", "a", "photo", "of", "cat", "dog", "Cat"]


def save_processing(folder, mean=0.5, **options):
    """A word-level tokenizer and a preprocessing, as transformers keeps them."""
    words = models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>")
    tokenizer = Tokenizer(words)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<end>", eos_token="<end>", unk_token="<unk>"
    ).save_pretrained(folder)
    config = {"image_mean": [mean] * 3, "image_std": [0.25] * 3, "resample": 3, **options}
    (folder / "preprocessor_config.json").write_text(json.dumps(config))


def saved(folder, kind, **options):
    model = transformers_model(kind)
    model.save_pretrained(folder)
    save_processing(folder, **options)
    return model


@pytest.mark.parametrize("kind", ["CLIP", "SigLIP", "SigLIP 2"])
def test_a_folder_gives_the_checkpoints_own_embeddings(kind, tmp_path):
    model = saved(tmp_path, kind, do_center_crop=kind == "CLIP")
    clip = load_clip(tmp_path, device="cpu")
    assert (clip.kind, clip.layers, clip.neurons, clip.image_size) == ("vit", 3, 96, (32, 32))
    assert (clip.image_mean, clip.image_std) == ((0.5,) * 3, (0.25,) * 3)
    batch = images(2, clip)
    if kind != "SigLIP 2":
        expected = model.get_image_features(batch).pooler_output
        assert torch.allclose(clip.encode_image(batch), expected, atol=1e-5)
    tokens = clip.tokenizer(["a photo of Cat"])
    assert tokens.shape == (1, 16)
    assert tokens[0, -1] == WORDS.index("<end>"), "padded to the right, as in training"
    assert clip.siglip == (kind != "CLIP")
    lowered = torch.equal(tokens, clip.tokenizer(["a photo of cat"]))
    assert lowered == (kind != "CLIP"), "SigLIP lower-cases"
    expected = model.get_text_features(tokens).pooler_output
    found = clip.encode_text(["a photo of Cat"])
    assert torch.allclose(found, torch.nn.functional.normalize(expected), atol=1e-5)
    # A wide picture is cropped by CLIP's processor and squashed by SigLIP's.
    picture = Image.new("RGB", (64, 32))
    picture.paste((255, 255, 255), (0, 0, 16, 32))
    left = clip.preprocess(picture)[0, 16, 0]
    assert (left < 0) == (kind == "CLIP")


def test_siglip_2_reads_an_image_as_the_checkpoints_own_processor_cuts_it():
    model = transformers_model("SigLIP 2")
    network = TransformersClip(model).eval()
    picture = torch.randn(1, 3, 32, 32)
    rows = []  # a patch after the other, and in it rows, columns, colours
    for row in range(4):
        for column in range(4):
            patch = picture[0, :, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8]
            rows.append(patch.permute(1, 2, 0).flatten())
    expected = model.get_image_features(
        pixel_values=torch.stack(rows)[None], pixel_attention_mask=torch.ones(1, 16).long(),
        spatial_shapes=torch.tensor([[4, 4]]),
    )  # fmt: skip
    assert torch.allclose(network.visual(picture), expected.pooler_output, atol=1e-5)


def effects_of(clip, batch):
    layers = tuple(clip.anatomy.readable)
    representation, contributions = Lens(clip, layers)(batch)
    units = torch.arange(0, clip.neurons, 7)
    return representation, [contributions[layer].dense(units) for layer in layers]


def assert_same(one, other, batch):
    (first, effects), (second, others) = effects_of(one, batch), effects_of(other, batch)
    assert (first - second).norm() / first.norm() < 1e-5
    for mine, theirs in zip(effects, others, strict=True):
        assert (mine - theirs).norm() / mine.norm() < 1e-5


def test_clip_of_both_libraries_with_the_same_weights_has_the_same_effects():
    model = transformers_model("CLIP")
    other = tiny_vit(layers=3, quick_gelu=True)
    visual, vision = other.visual, model.vision_model
    pairs = [
        (visual.class_embedding, vision.embeddings.class_embedding),
        (visual.conv1.weight, vision.embeddings.patch_embedding.weight),
        (visual.positional_embedding, vision.embeddings.position_embedding.weight),
        *_both(visual.ln_pre, vision.pre_layrnorm),
        *_both(visual.ln_post, vision.post_layernorm),
        (visual.proj, model.visual_projection.weight.T),
    ]
    for block, layer in zip(visual.transformer.resblocks, vision.encoder.layers, strict=True):
        attend = layer.self_attn
        parts = (attend.q_proj, attend.k_proj, attend.v_proj)
        pairs += [
            (block.attn.in_proj_weight, torch.cat([part.weight for part in parts])),
            (block.attn.in_proj_bias, torch.cat([part.bias for part in parts])),
            *_both(block.attn.out_proj, attend.out_proj),
            *_both(block.ln_1, layer.layer_norm1),
            *_both(block.ln_2, layer.layer_norm2),
            *_both(block.mlp.c_fc, layer.mlp.fc1),
            *_both(block.mlp.c_proj, layer.mlp.fc2),
        ]
    _copy(pairs)
    mine = TransformersClip(model)
    mine.context_length = 16
    assert_same(as_clip(mine), other, images(2, other))


def test_siglip_of_both_libraries_with_the_same_weights_has_the_same_effects():
    model = transformers_model("SigLIP")
    other = FAMILIES["SigLIP"]()
    trunk, vision = other.visual.trunk, model.vision_model
    for block in trunk.blocks:
        block.mlp.act = torch.nn.GELU(approximate="tanh")
    trunk.attn_pool.mlp.act = torch.nn.GELU(approximate="tanh")
    head, pool = vision.head, trunk.attn_pool
    query, keys = head.attention.in_proj_weight.split([24, 48])
    query_bias, key_bias = head.attention.in_proj_bias.split([24, 48])
    pairs = [
        *_both(trunk.patch_embed.proj, vision.embeddings.patch_embedding),
        (trunk.pos_embed, vision.embeddings.position_embedding.weight[None]),
        *_both(trunk.norm, vision.post_layernorm),
        (pool.latent, head.probe), (pool.q.weight, query), (pool.kv.weight, keys),
        (pool.q.bias, query_bias), (pool.kv.bias, key_bias),
        *_both(pool.proj, head.attention.out_proj), *_both(pool.norm, head.layernorm),
        *_both(pool.mlp.fc1, head.mlp.fc1), *_both(pool.mlp.fc2, head.mlp.fc2),
    ]  # fmt: skip
    for block, layer in zip(trunk.blocks, vision.encoder.layers, strict=True):
        attend = layer.self_attn
        parts = (attend.q_proj, attend.k_proj, attend.v_proj)
        pairs += [
            (block.attn.qkv.weight, torch.cat([part.weight for part in parts])),
            (block.attn.qkv.bias, torch.cat([part.bias for part in parts])),
            *_both(block.attn.proj, attend.out_proj),
            *_both(block.norm1, layer.layer_norm1),
            *_both(block.norm2, layer.layer_norm2),
            *_both(block.mlp.fc1, layer.mlp.fc1),
            *_both(block.mlp.fc2, layer.mlp.fc2),
        ]
    _copy(pairs)
    mine = TransformersClip(model)
    mine.context_length = 16
    assert_same(as_clip(mine), other, images(2, other))


def _both(one, other):
    return [(one.weight, other.weight), (one.bias, other.bias)]


@torch.no_grad()
def _copy(pairs):
    for to, value in pairs:
        to.copy_(value)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty Hub on loopback, and an empty cache."""
    with serve() as standin:
        address = standin.url
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        yield standin


def put(hub, name, folder):
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    hub.repositories[name] = Repository()
    hub.repositories[name].commit(files)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("google/siglip2-base-patch16-224", "SigLIP"),
        ("google/siglip2-base-patch16-naflex", "SigLIP 2"),
        ("openai/clip-vit-base-patch32", "CLIP"),
    ],
)
def test_published_checkpoints_are_fetched_as_safetensors(hub, tmp_path, name, kind):
    folder = tmp_path / "made"
    saved(folder, kind)
    (folder / "pytorch_model.bin").write_bytes(b"never fetched")
    put(hub, name, folder)
    clip = load_clip(name, device="cpu")
    assert clip.name == name
    expected = load_clip(folder, device="cpu")
    assert clip.sha256() == expected.sha256()
    assert torch.equal(clip.encode_text(["a cat"]), expected.encode_text(["a cat"]))
    assert not any("pytorch_model" in line for line in hub.log)


@pytest.mark.parametrize(
    ("model", "sizes"),
    [("PE-Core-T-16-384", (2, 3, 1, (4, 4))), ("ViT-B-16-SigLIP2", (2, 3, 0, (4, 4)))],
)
def test_a_published_open_clip_model_of_timm_is_fetched(hub, tmp_path, model, sizes, monkeypatch):
    """As published, made small; `test_configurations` builds them whole, without memory."""
    small = partial(timm.create_model, depth=2, embed_dim=96, num_heads=3, img_size=64)
    monkeypatch.setattr(timm, "create_model", small)
    name = f"timm/{model}"
    config = open_clip.get_model_config(model) | {"embed_dim": 96}
    config["vision_cfg"] |= {"image_size": 64}
    text = dict(
        context_length=16, vocab_size=64, width=16, heads=2, layers=1, hf_tokenizer_name=name
    )
    config["text_cfg"] |= text | {"tokenizer_kwargs": {"clean": "canonicalize"}}
    torch.manual_seed(0)
    made = open_clip.CustomTextCLIP(
        config["embed_dim"], config["vision_cfg"], config["text_cfg"],
        init_logit_bias=config.get("init_logit_bias"),
    )  # fmt: skip
    assert isinstance(made.visual, TimmModel)
    save_processing(tmp_path)
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": preprocess})
    )
    save_file(dict(made.state_dict()), tmp_path / "open_clip_model.safetensors")
    put(hub, name, tmp_path)
    clip = load_clip(f"hf-hub:{name}", device="cpu")
    assert (clip.layers, clip.heads, clip.prefix, clip.grid) == sizes
    assert clip.anatomy.pooling.kind == "probe"
    assert clip.encode_text(["a Cat!"]).shape == (1, config["embed_dim"])
    assert torch.equal(clip.tokenizer(["a Cat!"]), clip.tokenizer(["a cat"])), "cleaned"
    assert clip.siglip == ("SigLIP" in model)
    layer = clip.anatomy.pooling_layer
    embedding, effects = Lens(clip, [layer - 1, layer])(images(1, clip))
    assert embedding.shape == (1, config["embed_dim"])
    readers = clip.anatomy.pooling.attention.heads
    assert [mine.directions.heads for mine in effects.values()] == [readers, 1]


def test_what_is_no_checkpoint_is_refused_with_the_reason(hub, tmp_path):
    with pytest.raises(KeyError, match="there is no repository 'nobody/nothing'"):
        load_clip("nobody/nothing")
    saved(tmp_path, "SigLIP")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["BertModel"]}))
    with pytest.raises(ValueError, match="is a BertModel: expected one of CLIPModel"):
        load_clip(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match="holds no preprocessor_config"):
        load_clip(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"holds no model\.safetensors; other weights"):
        load_clip(tmp_path)


def test_missing_weights_are_refused_not_filled_at_random(tmp_path):
    model = saved(tmp_path, "CLIP")
    weights = model.state_dict()
    del weights["vision_model.encoder.layers.1.mlp.fc2.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"do not fit its config\.json: .*layers\.1\.mlp\.fc2"):
        load_clip(tmp_path)


def test_an_image_tower_alone_reads_images_and_refuses_texts(tmp_path, capsys):
    whole = transformers_model("CLIP")
    config = whole.config.vision_config
    config.projection_dim = 12
    model = transformers.CLIPVisionModelWithProjection(config)
    model.save_pretrained(tmp_path)
    save_processing(tmp_path)
    clip = load_clip(tmp_path, device="cpu")
    assert clip.encode_image(images(1, clip)).shape == (1, 12)
    with pytest.raises(ValueError, match="has no text tower"):
        clip.encode_text(["a cat"])
    assert main(["run", "--model", str(tmp_path), "--device", "cpu"]) == 2
    assert "has no text tower, and a bundle describes units in texts" in capsys.readouterr().err


def test_a_tower_without_pooling_head_is_refused(tmp_path):
    model = transformers_model("SigLIP")
    model.vision_model.use_head = False
    network = TransformersClip(model)
    network.context_length = 16
    with pytest.raises(UnsupportedModel, match="has no pooling head"):
        as_clip(network)


@pytest.mark.parametrize("named", [None, ["BertModel"], "CLIPModel"])
def test_a_foreign_config_beside_open_clips_files_is_in_nobodys_way(tmp_path, named):
    tiny_model_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": named}))
    assert load_clip(tmp_path, device="cpu").image_size == (32, 32)


def test_openais_repository_without_safetensors_names_another_way(tmp_path):
    folder = tmp_path / "models--openai--clip"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["CLIPModel"]}')
    with pytest.raises(ValueError, match="--pretrained openai"):
        load_clip(folder)
