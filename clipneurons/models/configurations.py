"""open_clip's configurations by name: is the image tower one that is read, before any weights.

`python -m clipneurons.models.configurations` prints the table of `docs/guide/models.md`.
"""

import json
from collections.abc import Iterable

import open_clip
import torch
from open_clip.model import _build_vision_tower
from open_clip.modified_resnet import ModifiedResNet
from torch.overrides import TorchFunctionMode

from clipneurons.models.adapters.common import Refused
from clipneurons.models.adapters.registry import anatomy_of
from clipneurons.models.anatomy import Anatomy

_FILLS = {
    "add_",
    "clamp_",
    "copy_",
    "div_",
    "erfinv_",
    "fill_",
    "mul_",
    "normal_",
    "uniform_",
    "zero_",
}


class _Unfilled(TorchFunctionMode):
    """Weights without memory take no initial values, which were nearly all of the cost."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.__name__ in _FILLS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def anatomy_of_configuration(name: str) -> Anatomy | None:
    """The anatomy of a named image tower, without memory for its weights; None for a ResNet.

    Raises:
        Refused: a tower that is not read; the message says why.
    """
    config = open_clip.get_model_config(name)
    with torch.device("meta"), _Unfilled():
        try:
            visual = _build_vision_tower(
                config["embed_dim"], config["vision_cfg"], config.get("quick_gelu", False)
            )
        except RuntimeError as error:  # timm lists what it cannot make on every installation
            raise Refused(f"timm cannot make its image tower ({error})") from None
        return None if isinstance(visual, ModifiedResNet) else anatomy_of(visual)


POOLINGS = {"token": "class token", "mean": "average", "probe": "attention of a probe"}


def statuses(names: Iterable[str]) -> dict[str, str]:
    """For configurations of open_clip how each is pooled, or why it is refused."""
    found, known = {}, {}
    for name in names:
        config = open_clip.get_model_config(name)
        # Configurations that differ in their texts alone have the same image tower.
        key = json.dumps([config["vision_cfg"], config["embed_dim"]], sort_keys=True)
        if key not in known:
            known[key] = _status(name)
        found[name] = known[key]
    return found


def _status(name: str) -> str:
    try:
        anatomy = anatomy_of_configuration(name)
    except Refused as refused:
        return f"refused: {refused}"
    return "ResNet" if anatomy is None else POOLINGS[anatomy.pooling.kind]


def table(found: dict[str, str]) -> str:
    """The statuses as rows of Markdown: each with the configurations that it is true of."""
    rows = ["| | configurations |", "|---|---|"]
    for status in sorted(set(found.values()), key=lambda one: (one.startswith("refused"), one)):
        names = [name for name, mine in found.items() if mine == status]
        rows.append(f"| {status} ({len(names)}) | {', '.join(names)} |")
    read = sum(not status.startswith("refused") for status in found.values())
    return "\n".join([f"{read} of {len(found)} are read.", "", *rows])


if __name__ == "__main__":
    print(table(statuses(open_clip.list_models())))
