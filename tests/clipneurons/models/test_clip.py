import json

import pytest
import torch
from safetensors.torch import save_file

from clipneurons.models.anatomy import UnsupportedModel
from clipneurons.models.clip import load_clip
from clipneurons.models.open_clip_folder import CONFIG_FILE, WEIGHTS_FILE
from tests.helpers.models import as_clip, images, tiny_resnet, tiny_vit

TEXT = dict(context_length=16, vocab_size=49408, width=16, heads=2, layers=1)
VISION = dict(image_size=32, layers=2, width=24, head_width=8, patch_size=8)


def save(folder, vision=VISION, clip=None, **config):
    folder.mkdir(exist_ok=True)
    model_cfg = dict(embed_dim=12, vision_cfg=vision, text_cfg=TEXT, **config)
    preprocess = dict(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), interpolation="bicubic")
    (folder / CONFIG_FILE).write_text(
        json.dumps(dict(model_cfg=model_cfg, preprocess_cfg=preprocess))
    )
    clip = clip or tiny_vit(layers=2, quick_gelu=config.get("quick_gelu", False))
    save_file(dict(clip.model.state_dict()), folder / WEIGHTS_FILE)
    return clip


def test_a_folder_is_loaded_with_its_weights_and_preprocessing(tmp_path):
    saved = save(tmp_path)
    clip = load_clip(tmp_path)
    batch = images(2, clip)
    assert torch.equal(clip.encode_image(batch), saved.encode_image(batch))
    assert clip.sha256() == saved.sha256()
    assert (clip.image_mean, clip.image_std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (clip.kind, clip.layers, clip.heads, clip.neurons) == ("vit", 2, 3, 96)
    assert (clip.image_size, clip.grid, clip.embed_dim) == ((32, 32), (4, 4), 12)
    assert clip.activation == "gelu"
    assert not clip.model.training


def test_quick_gelu_of_the_configuration_is_used_in_both_towers(tmp_path):
    save(tmp_path, quick_gelu=True)
    clip = load_clip(tmp_path)
    assert clip.activation == "quick_gelu"
    assert type(clip.model.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"


def test_a_resnet_folder_is_loaded(tmp_path):
    resnet = tiny_resnet()
    vision = dict(image_size=64, layers=[1, 1, 1, 1], width=8, head_width=64, patch_size=None)
    save(tmp_path, vision, resnet)
    clip = load_clip(tmp_path)
    assert (clip.kind, clip.layers, clip.heads, clip.neurons) == ("resnet", 4, 4, 256)
    assert (clip.grid, clip.activation) == ((2, 2), "relu")


def test_text_embeddings_have_unit_norm_and_depend_on_the_text():
    embeddings = tiny_vit().encode_text(["a cat", "a dog", "a cat"])
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(3))
    assert torch.equal(embeddings[0], embeddings[2])
    assert (embeddings[0] - embeddings[1]).norm() > 0.01


def test_short_texts_are_embedded_as_open_clip_embeds_them_with_all_their_padding():
    clip = tiny_vit()
    texts = ["a", "a photo of a cat", "dog " * 40, ""]
    expected = clip.model.encode_text(clip.tokenizer(texts), normalize=True)
    assert torch.allclose(clip.encode_text(texts), expected, atol=1e-6)
    for text, row in zip(texts, expected, strict=True):
        assert torch.allclose(clip.encode_text([text])[0], row, atol=1e-6)


def test_random_weights_are_the_same_each_time_and_leave_the_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = load_clip("ViT-S-32-alt", "random")
    assert torch.equal(torch.rand(3), expected)
    assert one.sha256() == load_clip("ViT-S-32-alt", "random").sha256()


def test_sha256_sees_every_weight():
    clip = tiny_vit()
    before = clip.sha256()
    clip.visual.proj.data[0, 0] += 1e-6
    assert clip.sha256() != before


def test_precision_is_that_asked_for(tmp_path):
    save(tmp_path)
    clip = load_clip(tmp_path, precision="bf16")
    assert next(clip.visual.parameters()).dtype == torch.bfloat16
    assert clip.encode_image(images(1, clip)).dtype == torch.float32
    with pytest.raises(ValueError, match="precision must be one of fp32, bf16, fp16, not 'int4'"):
        load_clip(tmp_path, precision="int4")


@pytest.mark.parametrize(
    ("model", "pretrained", "message"),
    [
        ("ViT-Z-99", "openai", "neither a folder nor an open_clip model"),
        ("ViT-B-32", "nobody", "'nobody' is not a set of weights of ViT-B-32. Expected .*openai"),
        ("ViT-B-32", None, "ViT-B-32 needs the name of its weights"),
    ],
)
def test_unknown_names_are_refused_with_those_that_exist(model, pretrained, message):
    with pytest.raises(KeyError, match=message):
        load_clip(model, pretrained)


def test_a_folder_without_weights_is_refused_not_filled_at_random(tmp_path):
    save(tmp_path)
    (tmp_path / WEIGHTS_FILE).unlink()
    with pytest.raises(ValueError, match=f"holds no {WEIGHTS_FILE}"):
        load_clip(tmp_path)


def test_damaged_and_wrong_weights_are_refused(tmp_path):
    save(tmp_path)
    content = (tmp_path / WEIGHTS_FILE).read_bytes()
    (tmp_path / WEIGHTS_FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="could not be loaded"):
        load_clip(tmp_path)
    save(tmp_path, {**VISION, "width": 32})
    with pytest.raises(ValueError, match="could not be loaded"):
        load_clip(tmp_path)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("convnext_base", "timm's ConvNeXt"),
        ("MobileCLIP-S1", "timm's FastVit"),
        ("ViTamin-S", "GeGluMlp, neither an MLP nor SwiGLU"),
        ("vit_relpos_medium_patch16_cls_224", "timm's VisionTransformerRelPos"),
    ],
)
def test_towers_that_would_be_read_wrongly_are_refused_by_name(model, reason):
    for tag in ("random", "nobody"):  # before weights are looked for
        with pytest.raises(UnsupportedModel, match=f"{reason}.*that work"):
            load_clip(model, tag)


def test_variants_of_the_plain_vit_are_refused_with_the_reason():
    with pytest.raises(UnsupportedModel, match=r"not a plain pre-norm block.*that work"):
        tiny_vit(block_type="custom", qk_norm=True)
    clip = tiny_vit()
    clip.visual.transformer.resblocks[1].ln_1 = torch.nn.RMSNorm(24)
    with pytest.raises(UnsupportedModel, match=r"1\.ln_1 normalises with RMSNorm"):
        as_clip(clip.model)
    clip = tiny_vit()
    clip.visual.transformer.resblocks[2].mlp.gelu = torch.nn.Tanh()
    with pytest.raises(UnsupportedModel, match="uses Tanh, not an activation of CLIP"):
        as_clip(clip.model)
