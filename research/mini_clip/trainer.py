"""What the trainings of all towers share: steps, rates, moving average, checkpoints."""

import json
import os
import time
from abc import ABC, abstractmethod
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from research.mini_clip import processes
from research.mini_clip.muon import optimisers
from research.mini_clip.recipe import Recipe


class Trainer(ABC):
    """One tower's training; everything that changes is saved and restored.

    A stage gives the model, the loss of a batch and a line of validation figures.
    """

    def __init__(self, recipe: Recipe, run: Path, device: str = "cpu"):
        self.recipe, self.device, self.path = recipe, device, run / f"{recipe.stage}.pt"
        torch.manual_seed(recipe.seed)
        self.rng = np.random.default_rng(recipe.seed)
        self.model = self.build().to(device)
        self.optimisers = optimisers(self.model, recipe.muon, recipe.adam)
        self.rates = [[g["lr"] for g in o.param_groups] for o in self.optimisers]
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.step, self.seconds = 0, 0.0
        if self.path.is_file():
            self.restore()
        if processes.index():
            self.draw_otherwise()

    @abstractmethod
    def build(self) -> nn.Module:
        """A fresh tower."""

    @abstractmethod
    def loss(self) -> Tensor:
        """The loss of the next batch."""

    @abstractmethod
    def figures(self) -> str:
        """How well the model, in evaluation mode, does on what training does not see."""

    def gradients(self) -> None:
        """Leave the gradients of one batch on the model."""
        loss = self.loss()
        loss.backward()
        self.last_loss = loss.item()

    @property
    def progress(self) -> float:
        if self.recipe.steps:
            return self.step / self.recipe.steps
        return self.seconds / (60 * self.recipe.minutes)

    def rate(self) -> float:
        """Warm-up over 50 steps, constant, then linear to zero from `cool` on."""
        left = (1 - self.progress) / (1 - self.recipe.cool)
        return min(1.0, (self.step + 1) / 50) * min(1.0, max(0.0, left))

    def train_step(self) -> float:
        """One step; its loss."""
        started, factor = time.monotonic(), self.rate()
        for optimiser, rates in zip(self.optimisers, self.rates, strict=True):
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        self.model.train()
        self.gradients()
        self.last_loss = processes.mean_gradients(self.model, self.last_loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), 2.0)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.update_average()
        self.step += 1
        self.seconds += processes.of_the_first(time.monotonic() - started)
        return self.last_loss

    @torch.no_grad()
    def update_average(self) -> None:
        decay = min(0.998, (1 + self.step) / (10 + self.step))
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    @torch.no_grad()
    def validate(self) -> str:
        """`figures` of the moving average."""
        current = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        self.model.eval()
        try:
            return self.figures()
        finally:
            self.model.load_state_dict(current)

    def draw_otherwise(self) -> None:
        """A later process of several draws its own batches, others after each start."""
        seeds = np.random.SeedSequence([self.recipe.seed, processes.index(), self.step])
        self.rng = np.random.default_rng(seeds)
        torch.manual_seed(int(seeds.generate_state(1)[0]))

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(), "average": self.average,
            "optimisers": [o.state_dict() for o in self.optimisers], "step": self.step,
            "seconds": self.seconds, "torch": torch.get_rng_state(),
            "numpy": json.dumps(self.rng.bit_generator.state), "recipe": asdict(self.recipe),
        }  # fmt: skip
        if self.device != "cpu":
            state["cuda"] = torch.cuda.get_rng_state()
        partial = self.path.with_suffix(".tmp")
        torch.save(state, partial)
        os.replace(partial, self.path)

    def restore(self) -> None:
        state = torch.load(self.path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step, self.seconds = state["step"], state["seconds"]
        torch.set_rng_state(state["torch"].cpu())
        if "cuda" in state and self.device != "cpu":
            torch.cuda.set_rng_state(state["cuda"].cpu())
        self.rng.bit_generator.state = json.loads(state["numpy"])
