"""Ranks of one run: bytes are gathered at rank 0 and handed out again (gloo, no pickles)."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
import torch.distributed as dist

from export.common.settings import Shard

# A rank may wait this long for a slower one, and for rank 0 to load the text pool.
PATIENCE = timedelta(hours=12)


def start() -> Shard:
    """Join the process group that `torchrun` announces; a single process without one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Shard()
    if not dist.is_initialized():
        dist.init_process_group("gloo", timeout=PATIENCE)
    return Shard(dist.get_rank(), dist.get_world_size())


def local_device(device: str | None) -> str | None:
    """The rank's own GPU where there are GPUs and no device was asked for."""
    if device is None and torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
        return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
    return device


def gather(data: bytes) -> list[bytes]:
    """Every rank's bytes, in rank order, on rank 0; an empty list elsewhere."""
    if not dist.is_initialized():
        return [data]
    if dist.get_rank() != 0:
        _send(data, 0)
        return []
    return [data, *(_receive(rank) for rank in range(1, dist.get_world_size()))]


def share(data: bytes | None) -> bytes:
    """Rank 0's bytes, on every rank."""
    if not dist.is_initialized():
        return data or b""
    if dist.get_rank() == 0:
        for rank in range(1, dist.get_world_size()):
            _send(data or b"", rank)
        return data or b""
    return _receive(0)


def stop() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _send(data: bytes, rank: int) -> None:
    dist.send(torch.tensor([len(data)]), rank)
    if data:
        dist.send(torch.frombuffer(bytearray(data), dtype=torch.uint8), rank)


def _receive(rank: int) -> bytes:
    size = torch.zeros(1, dtype=torch.int64)
    dist.recv(size, rank)
    data = torch.empty(int(size), dtype=torch.uint8)
    if data.numel():
        dist.recv(data, rank)
    return data.numpy().tobytes()
