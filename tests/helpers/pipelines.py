"""Tiny randomly initialised chat models and painters, saved as folders: every layer is real."""

import contextlib
import io

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def chat_folder(folder, lines, seed=0):
    """A Llama whose vocabulary holds whole lines besides bytes, so that it often says one."""
    byte_level = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*byte_level, "<end>"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    wrapped.pad_token = "<end>"
    wrapped.add_tokens([f"{line}\n" for line in lines])
    wrapped.chat_template = TEMPLATE
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(wrapped), hidden_size=16, intermediate_size=32,
                num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
                max_position_embeddings=4096, eos_token_id=wrapped.eos_token_id,
                pad_token_id=wrapped.eos_token_id, bos_token_id=None,
            )
        )  # fmt: skip
        # Every token's first coordinate is large, and the output layer's weight for bytes
        # negative there: bytes are never said; which line is, is left to the random weights.
        with torch.no_grad():
            model.model.embed_tokens.weight.normal_(0, 3)
            model.model.embed_tokens.weight[:, 0] = 10
            model.lm_head.weight.normal_()
            model.lm_head.weight[:, 0] = 0
            model.lm_head.weight[: len(byte_level), 0] = -20
    _quietly(model.save_pretrained, folder)
    wrapped.save_pretrained(folder)
    return folder


def painter_folder(folder, seed=0):
    """A Stable Diffusion of a few thousand weights."""
    from diffusers import (
        AutoencoderKL,
        EulerDiscreteScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )

    folder.mkdir(parents=True, exist_ok=True)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789,."
    tokens = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokens), hidden_size=32, intermediate_size=37,
                num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=77,
                bos_token_id=len(tokens) - 2, eos_token_id=len(tokens) - 1, pad_token_id=1,
            )
        )  # fmt: skip
        unet = UNet2DConditionModel(
            block_out_channels=(4, 8), layers_per_block=1, sample_size=16, in_channels=4,
            out_channels=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=32,
            attention_head_dim=2, norm_num_groups=2,
        )  # fmt: skip
        vae = AutoencoderKL(
            block_out_channels=[4, 8], in_channels=3, out_channels=3, latent_channels=4,
            down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
            norm_num_groups=2,
        )  # fmt: skip
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=text, tokenizer=tokenizer, unet=unet,
        scheduler=EulerDiscreteScheduler(steps_offset=1), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    _quietly(pipeline.save_pretrained, folder)
    return folder


def _quietly(save, folder):
    with contextlib.redirect_stderr(io.StringIO()):
        save(folder)
