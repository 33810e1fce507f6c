"""Muon: momentum whose update is orthogonalised (Jordan 2024), for the matrices of the blocks."""

import torch
from torch import nn


class Muon(torch.optim.Optimizer):
    """Weights of one shape take their step together."""

    def __init__(self, params, lr: float = 0.01, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            by_shape: dict[tuple, list] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(tuple(p.shape), []).append(p)
            for same in by_shape.values():
                self._step(same, group["lr"], group["momentum"])

    def _step(self, params: list, lr: float, momentum: float) -> None:
        updates = []
        for p in params:
            state = self.state[p]
            if not state:
                state["momentum"] = torch.zeros_like(p)
            state["momentum"].lerp_(p.grad, 1 - momentum)
            updates.append(p.grad.lerp(state["momentum"], momentum).flatten(1))
        updates = torch.stack(updates)
        rows, columns = updates.shape[1:]
        # Query, key and value share one weight but are three matrices.
        parts = updates.unflatten(1, (3, -1)) if rows == 3 * columns else updates[:, None]
        updates = orthogonal(parts.flatten(0, 1)).view(len(params), rows, columns)
        for p, update in zip(params, updates, strict=True):
            p.mul_(1 - lr * 0.02).add_(update.view_as(p), alpha=-lr)


def orthogonal(x: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The nearest semi-orthogonal matrices [n, a, b], by Newton-Schulz in bf16, scaled to keep the
    update's size."""
    tall = x.shape[1] > x.shape[2]
    y = (x.mT if tall else x).bfloat16()
    y = y / (y.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = y @ y.mT
        y = 3.4445 * y + (-4.775 * gram + 2.0315 * gram @ gram) @ y
    y = (y.mT if tall else y).to(x.dtype)
    return y * max(1, x.shape[1] / x.shape[2]) ** 0.5


def optimisers(model: nn.Module, muon_lr: float, adam_lr: float) -> list[torch.optim.Optimizer]:
    """Muon for matrices and convolutions inside blocks, AdamW for everything else."""
    inner, outer = [], []
    for name, p in model.named_parameters():
        if p.requires_grad:
            blocks = ("resblocks" in name or "layer" in name) and p.ndim in (2, 4)
            (inner if blocks else outer).append(p)
    adam = torch.optim.AdamW(outer, lr=adam_lr, betas=(0.9, 0.98), weight_decay=0.01)
    return [Muon(inner, lr=muon_lr), adam]
