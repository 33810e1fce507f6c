"""Ranks of one run: states are gathered at rank 0 and handed out again (gloo, no pickles)."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
import torch.distributed as dist

from export.common.settings import SINGLE, Shard
from export.common.state import State

# A rank may wait this long for a slower one, and for rank 0 to load the text pool.
PATIENCE = timedelta(hours=12)


def start() -> Shard:
    """Join the process group that `torchrun` announces; a single process without one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return SINGLE
    if not dist.is_initialized():
        dist.init_process_group("gloo", timeout=PATIENCE)
    return Shard(dist.get_rank(), dist.get_world_size())


def local_device(device: str | None) -> str | None:
    """The rank's own GPU where there are GPUs and no device was asked for."""
    if device is None and torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
        return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
    return device


def gather(state: State, device: torch.device) -> list[State]:
    """Every rank's state, in rank order, on rank 0; an empty list elsewhere."""
    if dist.get_rank() != 0:
        _send(state.to_bytes(), 0)
        return []
    received = (_receive(rank) for rank in range(1, dist.get_world_size()))
    return [state, *(State.from_bytes(data, device) for data in received)]


def share(state: State | None, device: torch.device) -> State:
    """Rank 0's state, on every rank; the others pass None."""
    if state is None:
        return State.from_bytes(_receive(0), device)
    data = state.to_bytes()
    for rank in range(1, dist.get_world_size()):
        _send(data, rank)
    return state


def agree(answer: bool) -> bool:
    """Rank 0's answer, on every rank."""
    if not dist.is_initialized():
        return answer
    flag = torch.tensor([answer], dtype=torch.uint8)
    dist.broadcast(flag, 0)
    return bool(flag)


def stop() -> None:
    """Leave the process group, once every rank is done."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def _send(data: bytes, rank: int) -> None:
    dist.send(torch.tensor([len(data)]), rank)
    dist.send(torch.frombuffer(bytearray(data), dtype=torch.uint8), rank)


def _receive(rank: int) -> bytes:
    size = torch.zeros(1, dtype=torch.int64)
    dist.recv(size, rank)
    data = torch.empty(int(size), dtype=torch.uint8)
    dist.recv(data, rank)
    return data.numpy().tobytes()
