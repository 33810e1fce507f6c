"""Data-parallel training under `torchrun`: each process sees its own batches."""

import torch
import torch.distributed as dist
from torch import nn


def index() -> int:
    """This process' number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def mean_gradients(model: nn.Module, loss: float) -> float:
    """Leave the mean gradients of all processes on each one's model; the mean of their losses."""
    if not dist.is_initialized():
        return loss
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([*(g.flatten() for g in gradients), gradients[0].new_tensor([loss])])
    dist.all_reduce(flat)
    flat /= count()
    means = flat[:-1].split([g.numel() for g in gradients])
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.view_as(gradient))
    return float(flat[-1])


def of_the_first(value: float) -> float:
    """The first process' value, on every process."""
    if not dist.is_initialized():
        return value
    shared = torch.tensor(value, dtype=torch.float64)
    dist.broadcast(shared, 0)
    return float(shared)
