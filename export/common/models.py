"""Models and devices that a user names; mistakes become `UserError`."""

from __future__ import annotations

from contextlib import suppress

import torch

from clipneurons.models.clip import ClipModel, load_clip
from export.common.errors import UserError


def open_clip_model(
    model: str,
    pretrained: str | None = None,
    device: str | None = None,
    **options,
) -> ClipModel:
    """`load_clip`, with its options and the user's mistakes as `UserError`."""
    if device and device.partition(":")[0] == "mps":
        raise UserError(f"--device {device} has no float64, which sums need: expected cpu or cuda")
    check_device(device)
    try:
        return load_clip(model, pretrained, device=device, **options)
    except (KeyError, ValueError) as error:
        raise UserError(error.args[0] if isinstance(error, KeyError) else str(error)) from None


def check_device(name: str | None) -> None:
    """Raise `UserError` unless tensors can be put on the device that `--device` names."""
    known = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.mps.is_available()}
    here = [kind for kind, is_here in known.items() if is_here]
    with suppress(RuntimeError):  # no such kind of device, or none of that number
        if not name or (torch.device(name).type in here and len(torch.zeros(1, device=name))):
            return
    raise UserError(f"--device {name} is not on this machine: expected {' or '.join(here)}")
