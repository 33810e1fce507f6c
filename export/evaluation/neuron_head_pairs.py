"""`python -m export evaluate --pairs`: which neuron-head pairs of a ResNet matter.

Whether neurons are of rank one, too, and what their heads mean. Scenes of one object each, in a
style that was trained. All but the largest pairs are set to their mean, per image and by one
ranking for all images, and the rest has to classify.
"""

from __future__ import annotations

import argparse
from operator import attrgetter

import numpy as np
import torch

from clipneurons.analysis.neuron_head_pairs import (
    accuracy,
    explained_by_one_direction,
    keep_largest,
    sub_concepts,
)
from clipneurons.bundle.bundle import Bundle
from clipneurons.lens.contributions import Contributions, MeanEffect
from clipneurons.lens.make import make_lens
from clipneurons.lens.neuron_head import LAYER
from clipneurons.models.clip import ClipModel
from clipneurons.text.embedding import embed_texts
from export.common.errors import UserError
from export.evaluation.preprocessed import preprocessed

SHARES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_BATCH = 64


def measure(bundle: Bundle, clip: ClipModel, args: argparse.Namespace) -> dict:
    """Accuracy curves, variance explained, and the sub-concepts of a few neurons."""
    if clip.kind != "resnet":
        raise UserError(f"--pairs: {args.bundle} is of a {clip.kind}, expected a ResNet")
    return measure_on(bundle, clip, args.pair_scenes)


def measure_on(bundle: Bundle, clip: ClipModel, count: int, seed: int = 0) -> dict:
    """The same on a number of scenes."""
    from clipneurons.synthetic.pictograms import load_pictograms
    from clipneurons.synthetic.scenes import SceneConfig, Scenes

    pack = load_pictograms()
    scenes = Scenes(pack, SceneConfig(size=max(clip.image_size), objects=(1, 1)), count, seed)
    lens = make_lens(clip)
    representations, scores, labels = [], [], []
    for pixels, batch in preprocessed(clip, scenes, attrgetter("image"), _BATCH):
        representation, contributions = lens(pixels)
        representations.append(representation)
        scores.append(contributions[LAYER].scores)
        labels += [pack.concepts.index(s.objects[0].name) for s in batch]
    representation, scores = torch.cat(representations), torch.cat(scores)
    labels = torch.tensor(labels, device=scores.device)
    directions = lens.directions[LAYER]
    mean = MeanEffect(scores.mean(0))
    classes = embed_texts(clip, list(pack.concepts), "photo")
    counts = sorted({round(share * directions.units) for share in SHARES})
    ranking = ((scores - mean.scores)[..., 0].square().mean(0) * directions.gram[:, 0, 0]).sqrt()
    curves = {}
    for name, order in (("largest of each image", None), ("largest of all images", ranking)):
        curve = dict.fromkeys(counts, 0.0)
        for part in torch.arange(count).split(_BATCH):
            mine = Contributions(scores[part], directions)
            kept = keep_largest(representation[part], mine, mean, counts, order)
            for number, embeddings in kept.items():
                curve[number] += accuracy(embeddings, classes, labels[part]) * len(part) / count
        curves[name] = {number: round(value, 2) for number, value in curve.items()}
    by_head = scores[..., 0].unflatten(1, (clip.neurons, clip.heads))
    whole = torch.cat(
        [
            explained_by_one_direction(by_head[:, part], directions.whole.dense(part))
            for part in torch.arange(clip.neurons).split(128)
        ]
    )
    return {
        "images": count,
        "pairs": directions.units,
        "accuracy by pairs kept": curves,
        "variance explained by one direction": {
            "pair": 1.0,
            "neuron, mean": round(whole.mean().item(), 4),
            "neuron, quartiles": [round(q, 4) for q in
                                  np.quantile(whole.cpu().numpy(), [0.25, 0.5, 0.75]).tolist()],
        },
        "sub-concepts": _examples(bundle, by_head, directions, whole),
    }  # fmt: skip


def _examples(bundle, by_head, directions, whole, neurons: int = 5) -> list[dict]:
    """Sub-concepts of the strong neurons that one direction explains least, in words."""
    texts = bundle.text_embeddings - bundle.text_embeddings.mean(0)
    texts = torch.nn.functional.normalize(texts, dim=-1)
    strength = by_head.var(0).sum(1)
    strong = strength.topk(max(neurons, len(strength) // 4)).indices
    chosen = strong[whole[strong].argsort()[:neurons]]
    found = []
    for neuron in chosen.tolist():
        dense = directions.whole.dense(torch.tensor([neuron]))[0]
        concepts = sub_concepts(by_head[:, neuron], dense)
        found.append(
            {
                "neuron": neuron,
                "explained": round(whole[neuron].item(), 3),
                "groups": [_in_words(group, bundle.texts, texts) for group in concepts[:3]],
            }
        )
    return found


def _in_words(group, names: list[str], texts: torch.Tensor) -> dict:
    said = texts @ group.direction.to(texts)
    return {
        "heads": list(group.heads),
        "share": round(group.share, 3),
        "words": [names[i] for i in said.topk(3).indices],
        "images": list(group.images),
    }


def in_words(figures: dict) -> str:
    """What to read of the figures: both curves, the rank of neurons, groups of heads."""
    curves = figures["accuracy by pairs kept"]
    lines = [
        f"{figures['images']:,} scenes, {figures['pairs']:,} neuron-head pairs",
        "accuracy in percent with the largest pairs kept, the others at their mean",
        f"{'pairs kept':>10}" + "".join(f"  {name}" for name in curves),
    ]
    for count in next(iter(curves.values())):
        values = "".join(f"  {curve[count]:>{len(name)}.1f}" for name, curve in curves.items())
        lines.append(f"{count:>10,}{values}")
    explained = figures["variance explained by one direction"]
    low, middle, high = explained["neuron, quartiles"]
    lines.append(
        f"variance explained by one direction: {explained['neuron, mean']:.1%} of a neuron on"
        f" average (quartiles {low:.1%}, {middle:.1%}, {high:.1%}), all of a pair"
    )
    lines.append("sub-concepts of strong neurons that one direction explains least")
    for found in figures["sub-concepts"]:
        lines.append(f"  neuron {found['neuron']}, {found['explained']:.0%} by one direction")
        lines += [
            f"    {', '.join(group['words'])}: {group['share']:.0%} of the variance,"
            f" through heads {group['heads']}"
            for group in found["groups"]
        ]
    return "\n".join(lines)
