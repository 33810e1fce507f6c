"""A TopK dictionary with Matryoshka losses and an auxiliary loss for dead latents.

    f  = TopK(relu(x W_enc + b_enc))                        x, y centred, of mean norm 1
    L  = mean_m ‖y − f[:m] W_dec[:m] − b_dec‖²  + ‖e − f_dead W_dec‖² / 16

    m       prefixes of the latents: an eighth, a quarter, half, all. The first latents have to
            rebuild y alone, so that wide dictionaries do not split what belongs together
    e       what all latents miss of y, no gradient
    f_dead  the largest latents among those that have not fired for `DEAD` tokens
    y       x itself, or the MLP's output for a transcoder

Rows of W_dec keep unit norm. Centre and scale are folded into the weights at the end, so that the
dictionary reads the model as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from clipneurons.bundle.sparse_features import SparseFeatures
from export.common.state import State
from export.pipeline.feature_figures import Tokens

# Tokens without firing after which a latent is dead, and its loss's weight.
DEAD, AUXILIARY = 120_000, 1 / 16
# Seconds between checkpoints; share of the images that the figures are measured on.
EVERY, HELD_OUT = 30.0, 0.05


@dataclass(frozen=True)
class Training:
    """What changes the result: compared when a stopped training goes on."""

    model: str
    images: str
    block: int
    site: str
    tokens: str = "all"
    latents: int = 1536
    k: int = 16
    steps: int = 1000
    batch: int = 2048
    rate: float = 2e-3
    seed: int = 0


@torch.no_grad()
def moments(tokens: Tokens) -> list[Tensor]:
    """Mean and mean distance from it, of inputs and of targets, over at most 50,000 tokens."""
    found = []
    for rows in (tokens.inputs, tokens.targets):
        sample = rows[:: -(-len(rows) // 50_000)].float()
        mean = sample.mean(0)
        found += [mean, (sample - mean).norm(dim=1).mean()]
    return found


@dataclass
class Trainer:
    """Weights in training, their optimiser, and when each latent last fired."""

    training: Training
    weights: dict[str, Tensor]
    optimiser: torch.optim.Adam
    idle: Float[Tensor, " latent"]
    step: int = 0

    @classmethod
    def begin(cls, training: Training, width: int, device: torch.device) -> Trainer:
        """Random unit rows, the encoder their transpose."""
        generator = torch.Generator().manual_seed(training.seed)
        rows = torch.randn(training.latents, width, generator=generator)
        rows = rows / rows.norm(dim=1, keepdim=True)
        weights = {
            "w_enc": rows.T.clone(), "b_enc": torch.zeros(training.latents),
            "w_dec": rows, "b_dec": torch.zeros(width),
        }  # fmt: skip
        weights = {name: w.to(device).requires_grad_() for name, w in weights.items()}
        optimiser = torch.optim.Adam(weights.values(), lr=training.rate)
        return cls(training, weights, optimiser, torch.zeros(training.latents, device=device))

    def encode(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Latents before and after TopK."""
        pre = torch.relu(inputs @ self.weights["w_enc"] + self.weights["b_enc"])
        values, indices = pre.topk(self.training.k, dim=-1)
        return pre, torch.zeros_like(pre).scatter(-1, indices, values)

    def update(self, inputs: Tensor, targets: Tensor) -> float:
        """One step on a batch of normalised tokens; the loss."""
        training, w_dec = self.training, self.weights["w_dec"]
        pre, latents = self.encode(inputs)
        rebuilt, losses, start = self.weights["b_dec"], [], 0
        for stop in prefixes(training.latents):
            rebuilt = rebuilt + latents[:, start:stop] @ w_dec[start:stop]
            losses.append((targets - rebuilt).square().sum(1).mean())
            start = stop
        loss = torch.stack(losses).mean()
        fired = (latents > 0).any(0)
        self.idle = torch.where(fired, torch.zeros(()).to(self.idle), self.idle + len(inputs))
        dead = self.idle > DEAD
        if bool(dead.any()):
            values, indices = (pre * dead).topk(min(64, int(dead.sum())), dim=-1)
            revived = torch.zeros_like(pre).scatter(-1, indices, values) @ w_dec
            missed = (targets - rebuilt).detach()
            loss = loss + AUXILIARY * (missed - revived).square().sum(1).mean()
        self.optimiser.param_groups[0]["lr"] = self._rate()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        with torch.no_grad():
            w_dec /= w_dec.norm(dim=1, keepdim=True)
        self.step += 1
        return float(loss.detach())

    def _rate(self) -> float:
        """A short warm-up, and down to zero over the last 30 %."""
        steps = self.training.steps
        rising, falling = (self.step + 1) / 50, (steps - self.step) / (0.3 * steps)
        return self.training.rate * min(1.0, rising, falling)

    def state(self) -> State:
        """For a checkpoint."""
        tensors = dict(self.weights) | {"idle": self.idle}
        for name, weight in self.weights.items():
            for key, value in self.optimiser.state[weight].items():
                tensors[f"{name}.{key}"] = value
        return State(tensors, {"step": self.step, "training": asdict(self.training)})

    def restore(self, state: State) -> None:
        """Go on from a checkpoint."""
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(state.tensors[name])
                kept = {
                    key: state.tensors[f"{name}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq")
                }
                kept["step"] = kept["step"].cpu()
                self.optimiser.state[weight] = kept
        self.idle, self.step = state.tensors["idle"].to(self.idle), state.note["step"]


def prefixes(latents: int) -> list[int]:
    """Ends of the nested dictionaries."""
    return sorted({max(1, latents // part) for part in (8, 4, 2, 1)})


def train(
    trainer: Trainer,
    tokens: Tokens,
    checkpoint: Path,
    reached: Callable[[int], None] = lambda step: None,
) -> None:
    """Train to the last step from where the trainer is, writing a checkpoint every half minute."""
    input_mean, input_scale, mean, scale = moments(tokens)
    training, saved = trainer.training, time.monotonic()
    with tqdm(
        total=training.steps, initial=trainer.step, desc="training", unit="steps", disable=None
    ) as bar:
        for rows in _rows(trainer, len(tokens)):
            inputs = (tokens.inputs[rows].float() - input_mean) / input_scale
            targets = inputs
            if tokens.targets is not tokens.inputs:
                targets = (tokens.targets[rows].float() - mean) / scale
            loss = trainer.update(inputs, targets)
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            if time.monotonic() - saved >= EVERY:
                trainer.state().save(checkpoint)
                saved = time.monotonic()
            reached(trainer.step)
    trainer.state().save(checkpoint)


def _rows(trainer: Trainer, count: int) -> Iterator[Tensor]:
    """Rows of each step that is left; a step has the same ones whenever it is done."""
    training = trainer.training
    for step in range(trainer.step, training.steps):
        generator = torch.Generator().manual_seed(training.seed * 2**32 + step)
        yield torch.randint(count, (training.batch,), generator=generator)


def finished(trainer: Trainer, tokens: Tokens, model: str, source: str) -> SparseFeatures:
    """The dictionary, which reads and writes the model's own tensors."""
    input_mean, input_scale, mean, scale = moments(tokens)
    w = {name: weight.detach() for name, weight in trainer.weights.items()}
    training = trainer.training
    w_enc = w["w_enc"] / input_scale
    return SparseFeatures(
        w_enc, w["b_enc"] - input_mean @ w_enc, scale * w["w_dec"], scale * w["b_dec"] + mean,
        block=training.block, site=training.site, activation="topk", k=training.k,
        tokens=training.tokens, model=model, source=source,
    )  # fmt: skip
