"""The small CLIPs: their configurations, the optimiser, and writing an open_clip folder."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from export.mini_clip.word_space import DIM

VOCABULARY = 49408
TEXT = {"context_length": 24, "vocab_size": VOCABULARY, "width": 128, "heads": 4, "layers": 3}
VISION = {
    "vit": {"image_size": 64, "layers": 6, "width": 128, "head_width": 32, "patch_size": 8},
    "rn": {"image_size": 128, "layers": [1, 1, 1, 1], "width": 16},
}
STATS = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
WEIGHTS = "open_clip_model.safetensors"
SCALE = 20.0  # logit scale: cosines to logits


def model_config(kind: str) -> dict:
    return {"embed_dim": DIM, "vision_cfg": VISION[kind], "text_cfg": TEXT}


def build(kind: str) -> nn.Module:
    """A fresh open_clip CLIP of this configuration."""
    from open_clip.model import CLIP

    config = model_config(kind)
    return CLIP(config["embed_dim"], dict(config["vision_cfg"]), dict(config["text_cfg"]))


def used_tokens(texts: list[str]) -> torch.Tensor:
    """Sorted ids of every token these texts need, with padding, start and end."""
    from open_clip import SimpleTokenizer

    ids = SimpleTokenizer(context_length=TEXT["context_length"])(texts)
    return torch.unique(torch.cat([ids.flatten(), torch.tensor([0])]))


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised (Jordan 2024): for the matrices of the blocks."""

    def __init__(self, params, lr: float = 0.02, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(state["momentum"], group["momentum"]).flatten(1)
                # Query, key and value share one weight but are three matrices.
                parts = update.chunk(3) if update.shape[0] == 3 * update.shape[1] else [update]
                update = torch.cat([orthogonal(part) for part in parts])
                p.mul_(1 - group["lr"] * 0.02).add_(update.view_as(p), alpha=-group["lr"])


def orthogonal(x: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The nearest semi-orthogonal matrix, by Newton-Schulz, scaled to keep the update's size."""
    tall = x.shape[0] > x.shape[1]
    y = x.T if tall else x
    y = y / (y.norm() + 1e-7)
    for _ in range(steps):
        gram = y @ y.T
        y = 3.4445 * y + (-4.775 * gram + 2.0315 * gram @ gram) @ y
    y = y.T if tall else y
    return y * max(1, x.shape[0] / x.shape[1]) ** 0.5


def optimisers(model: nn.Module, muon_lr: float, adam_lr: float) -> list[torch.optim.Optimizer]:
    """Muon for matrices and convolutions inside blocks, AdamW for everything else; or for
    everything if `muon_lr` is 0."""
    if not muon_lr:
        weights = [p for p in model.parameters() if p.requires_grad]
        return [torch.optim.AdamW(weights, lr=adam_lr, betas=(0.9, 0.98), weight_decay=0.01)]
    inner, outer = [], []
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        blocks = ("resblocks" in name or "layer" in name) and p.ndim in (2, 4)
        (inner if blocks else outer).append(p)
    adam = torch.optim.AdamW(outer, lr=adam_lr, betas=(0.9, 0.98), weight_decay=0.01)
    return [Muon(inner, lr=muon_lr), adam]


def export(kind: str, visual: dict, text: dict, folder: Path) -> None:
    """Write an open_clip folder (fp16) from an image tower's and a text tower's weights."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {f"visual.{name}": value for name, value in visual.items()} | text
    weights["logit_scale"] = torch.tensor(SCALE).log()
    expected = build(kind).state_dict()
    missing, extra = expected.keys() - weights.keys(), weights.keys() - expected.keys()
    if missing or extra:
        raise ValueError(f"{kind}: weights missing {sorted(missing)}, unexpected {sorted(extra)}")
    for name, value in weights.items():
        if value.shape != expected[name].shape:
            raise ValueError(f"{name}: shape {value.shape}, the model has {expected[name].shape}")
    half = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in weights.items()}
    config = {"model_cfg": model_config(kind),
              "preprocess_cfg": {**STATS, "interpolation": "bicubic"}}  # fmt: skip
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    path = folder / WEIGHTS
    save_file(half, str(path), metadata={"format": "pt"})
    path.chmod(0o644)


def expand(text: dict, tokens: torch.Tensor) -> dict:
    """A trained text tower with its token table back at open_clip's full vocabulary."""
    rows = text["token_embedding.weight"]
    table = torch.zeros(VOCABULARY, rows.shape[1])
    table[tokens] = rows
    return {**text, "token_embedding.weight": table}
