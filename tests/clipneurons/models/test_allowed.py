"""What configurations may ask for: everything that is published, nothing that leads elsewhere."""

import json

import open_clip
import pytest
import torch

from clipneurons.models.allowed import check_open_clip
from clipneurons.models.clip import load_clip
from tests.clipneurons.models.test_transformers_clip import save_processing, saved
from tests.helpers.models import images
from tests.helpers.tiny import tiny_model_folder


def test_every_model_of_open_clip_may_be_built():
    for model in open_clip.list_models():
        check_open_clip({"model_cfg": open_clip.get_model_config(model)}, model)


def biomedical():
    """A model on the Hub, as some are: its text tower is another repository's."""
    return {
        "embed_dim": 512,
        "vision_cfg": {"timm_model_name": "vit_base_patch16_224", "timm_model_pretrained": False,
                       "timm_pool": "", "timm_proj": "linear", "image_size": 224},
        "text_cfg": {"hf_tokenizer_name": "maker/words", "context_length": 256},
    }  # fmt: skip


def test_a_model_on_the_hub_may_name_its_tokenizer_there():
    check_open_clip({"model_cfg": biomedical()}, "hf-hub:maker/clip", from_hub=True)
    for name in ("/etc", "../words", "a/b/c", "https://elsewhere/x"):
        config = biomedical()
        config["text_cfg"]["hf_tokenizer_name"] = name
        with pytest.raises(ValueError, match="hf_tokenizer_name"):
            check_open_clip({"model_cfg": config}, "hf-hub:maker/clip", from_hub=True)


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        ("vision_cfg", "timm_model_name", "hf_hub:evil/model"),
        ("text_cfg", "hf_model_name", "evil/model"),
        ("text_cfg", "norm_kwargs", {"eps": 1e-6, "more": 1}),
        ("text_cfg", "tokenizer_kwargs", {"trust_remote_code": True}),
        ("text_cfg", "context_length", 90_000),
        ("vision_cfg", "image_size", "224"),
    ],
)
def test_settings_are_known_one_by_one(place, name, value):
    config = open_clip.get_model_config("ViT-B-16-SigLIP")
    config[place][name] = value
    with pytest.raises(ValueError, match="no plain CLIP"):
        check_open_clip({"model_cfg": config}, "folder")


def test_a_folder_of_open_clip_brings_its_own_tokenizer(tmp_path):
    folder = tiny_model_folder(tmp_path / "model")
    save_processing(folder)
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["text_cfg"] |= {
        "hf_tokenizer_name": "timm/ViT-B-16-SigLIP", "tokenizer_kwargs": {"clean": "canonicalize"},
    }  # fmt: skip
    path.write_text(json.dumps(config))
    tokens = load_clip(folder, device="cpu").tokenizer(["a Cat!"])
    assert tokens[0, :3].tolist() == [3, 6, 1], "words of the saved tokenizer, cleaned"


@pytest.fixture
def checkpoint(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    saved(tmp_path / "checkpoint", "CLIP")
    return tmp_path / "checkpoint"


def edit(folder, file, **values):
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_checkpoint_is_reduced_to_its_numbers(checkpoint):
    before = load_clip(checkpoint, device="cpu")
    edit(checkpoint, "config.json", auto_map={"AutoModel": "evil/code--model.Model"},
         attn_implementation="evil/kernels", quantization_config={"quant_method": "x"},
         _attn_implementation="evil/kernels", output_attentions=True)  # fmt: skip
    after = load_clip(checkpoint, device="cpu")
    batch = images(2, before)
    assert torch.equal(after.encode_image(batch), before.encode_image(batch))
    assert torch.equal(after.encode_text(["a cat"]), before.encode_text(["a cat"]))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("num_hidden_layers", 10**6, "no plain CLIP"),
        ("hidden_size", 10**9, "no plain CLIP"),
        ("hidden_act", "evil", "no plain CLIP"),
        ("image_size", 10**5, "no plain CLIP"),
        ("patch_size", 0.1, "patches"),
        ("intermediate_size", 10**5, "do not fit"),
        ("num_attention_heads", 0, "cannot be built|makes no CLIPModel"),
    ],
)
def test_a_checkpoint_of_odd_numbers_is_refused(checkpoint, name, value, said):
    told = json.loads((checkpoint / "config.json").read_text())["vision_config"]
    edit(checkpoint, "config.json", vision_config=told | {name: value})
    with pytest.raises(ValueError, match=said):
        load_clip(checkpoint, device="cpu")


def test_an_adapter_is_to_be_merged_first(checkpoint):
    (checkpoint / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/model"}')
    with pytest.raises(ValueError, match="merge it first"):
        load_clip(checkpoint, device="cpu")


@pytest.mark.parametrize(
    "told",
    [
        {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}},
        {"tokenizer_class": "BertJapaneseTokenizer"},
        {"tokenizer_file": "/etc/tokenizer.json"},
    ],
)
def test_a_tokenizer_is_data_of_its_folder(checkpoint, told):
    edit(checkpoint, "tokenizer_config.json", **told)
    with pytest.raises(ValueError, match=f"asks for {next(iter(told))}"):
        load_clip(checkpoint, device="cpu")
