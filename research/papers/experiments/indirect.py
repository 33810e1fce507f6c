"""Indirect against second-order effects of one layer's neurons (Table 1)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.lens.indirect import indirect_effects, mean_activations
from clipneurons.lens.lens import Lens
from clipneurons.models.clip import ClipModel
from clipneurons.models.hooks import record_activations
from export.common.numbers import percent, spread
from export.evaluation.tally import Tally
from research.papers import published
from research.papers.context import EvaluationContext
from research.papers.metric import metric
from research.papers.types import Claim, Experiment, Section, Table

# Share of the images whose effects a principal component is taken of, as in the export.
_TOP = 0.02


def measure(context: EvaluationContext) -> dict:
    """Accuracy after ablation, and the variance that the first component explains."""
    clip, layer, options = context.clip, context.layer, context.options
    found = context.fidelity(context.wide((layer,)))
    passes = list(context.pass_over(context.usual, "indirect effects", options.indirect_images))
    means = mean_activations(clip, (images for _, images, _ in passes), layer)
    tally = Tally()
    for _, images, labels in context.pass_over(context.judged, "indirect ablation"):
        original, ablated = all_at_mean(clip, images, layer, means)
        tally.add(ablated, original, context.classifier, labels)
    generator = torch.Generator().manual_seed(0)
    units = torch.randperm(clip.neurons, generator=generator)[: options.indirect_neurons]
    lens = Lens(clip, (layer,))
    indirect, second = [], []
    for _, images, _ in passes:
        indirect.append(indirect_effects(clip, images, layer, units, means).cpu())
        second.append(lens(images)[1][layer].dense(units).cpu())
    return {
        "layer": layer,
        "count": found["count"],
        "images": found["images"],
        "baseline": found["baseline"],
        "second-order": found["layers"][f"layer {layer}"]["all effects mean-ablated"]
        | {"variance": variances(torch.cat(second))},
        "indirect": tally.figures() | {"variance": variances(torch.cat(indirect))},
        "neurons": len(units),
        "variance_images": sum(len(images) for _, images, _ in passes),
    }


@torch.no_grad()
def all_at_mean(
    clip: ClipModel,
    images: Float[Tensor, "image 3 height width"],
    layer: int,
    means: Float[Tensor, "token neuron"],
) -> tuple[Float[Tensor, "image embed"], Float[Tensor, "image embed"]]:
    """Embeddings, and embeddings with all activations of the layer at their per-token means."""
    anatomy = clip.anatomy
    mlp, after = anatomy.mlp(layer), anatomy.blocks[layer].path
    with record_activations(clip.visual, [mlp.path, after]) as tensors:
        original = clip.encode_image(images)
    activations = tensors[mlp.path]
    change = mlp(means.to(activations).expand_as(activations)) - mlp(activations)
    stream = tensors[after] + change
    for block in anatomy.blocks[layer + 1 :]:
        stream = block.run(stream)
    return original, anatomy.read_out(stream)


def variances(effects: Float[Tensor, "image unit embed"]) -> list[float]:
    """Share of the variance of each unit's largest effects along their first component."""
    centred = (effects - effects.mean(0)).double().transpose(0, 1)  # [unit, image, embed]
    count = min(max(10, round(_TOP * centred.shape[1])), centred.shape[1])
    top = centred.norm(dim=2).topk(count, dim=1).indices
    rows = centred.gather(1, top[..., None].expand(-1, -1, centred.shape[2]))
    squares = torch.linalg.svdvals(rows).square()
    total = squares.sum(1)
    return (squares[:, 0] / total.clamp_min(1e-30))[total > 0].tolist()


def report(result: Mapping) -> Section:
    """The table with the paper's own values beside ours."""
    by = metric(result["baseline"])
    rows, shares = [], {}
    for name, theirs in (
        ("indirect", published.INDIRECT),
        ("second-order", published.SECOND_ORDER),
    ):
        figures = result[name]
        values = torch.tensor(figures["variance"])
        half = 1.96 * float(values.std(correction=0)) / max(len(values), 1) ** 0.5
        shares[name] = float(values.mean()), half
        rows.append(
            [
                f"{name} effect",
                spread(*by(figures)),
                str(theirs["accuracy"]),
                f"{percent(shares[name][0])} ± {percent(half)}",
                str(theirs["variance"]),
            ]
        )
    lost = {kind: by.base - by(result[kind])[0] for kind in ("indirect", "second-order")}
    ours, ends = shares["second-order"]
    gap = ours - shares["indirect"][0]
    noise = (ends**2 + shares["indirect"][1] ** 2) ** 0.5
    return Section(
        title="Indirect against second-order effects",
        source="2406.04341, Table 1",
        text=f"Layer {result['layer']}. For the indirect effect all activations of the layer are "
        "set to their per-token mean and the later blocks run again; for the second-order effect "
        f"only its flow through later heads is replaced ({result['count']:,} images). Variance: of "
        f"the largest effects of {result['neurons']} neurons chosen by chance, over "
        f"{result['variance_images']} images, the part along their first component.{by.note}",
        parts=[
            Table(
                f"{by.name.capitalize()} after mean-ablation ({percent(by.base)} before) and "
                f"variance of the first component, in per cent; theirs: {published.MODEL}.",
                ["", f"{by.name}, ours", "theirs (accuracy)", "variance, ours", "theirs"],
                rows,
            )
        ],
        claims=[
            Claim(
                "One direction describes a second-order effect better than an indirect one.",
                None if abs(gap) < noise else gap > 0,
                f"The first component explains {percent(ours)} % of second-order and "
                f"{percent(shares['indirect'][0])} % of indirect effects.",
            ),
            Claim(
                "Ablating second-order effects costs more accuracy than ablating the neurons "
                "themselves.",
                is_lower(by(result["second-order"]), by(result["indirect"])),
                "; ".join(f"{kind}: {percent(x)} points lost" for kind, x in lost.items()) + ".",
            ),
        ],
    )


def is_lower(one: tuple, other: tuple) -> bool | None:
    """Whether one value is below the other; None where the intervals overlap."""
    (a, (a_low, a_high)), (b, (b_low, b_high)) = one, other
    return None if a_low <= b_high and b_low <= a_high else a < b


EXPERIMENT = Experiment(
    "indirect effects",
    ("vit",),
    ("images", "statistics", "indirect_images", "indirect_neurons"),
    measure,
    report,
)
