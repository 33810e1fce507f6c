"""Classes and cues that mislead a model, chosen on drawings of their own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from clipneurons.models.clip import ClipModel
from clipneurons.synthetic.captions import BACKGROUNDS, COLOURS
from clipneurons.synthetic.scenes import Placed, compose
from clipneurons.synthetic.spurious import Drawings, SpuriousTask
from clipneurons.text.embedding import embed_texts

TEMPLATES = "photo"


@torch.no_grad()
def misleading_tasks(
    clip: ClipModel,
    things: Drawings,
    concepts: Sequence[str],
    companions: Drawings,
    others: Sequence[str],
    count: int,
    seed: int = 0,
    pictures: int = 3,
    names: int = 40,
) -> list[SpuriousTask]:
    """Pairs of classes with the companions or grounds that pull them together most.

    With μ the mean embeddings of single drawings and t the texts, cue x pulls toward class a by
    ⟨μ_x, t_a − t_b⟩. Pairs are taken by the pull of their two cues relative to the classes' own
    distance, each name once, among the half of the pairs that the model tells apart best; half of
    the tasks have grounds for cues. Looked through are `names` concepts and as many companions,
    drawn by chance.
    """
    rng = np.random.default_rng(seed)
    concepts, others = (
        [str(name) for name in rng.permutation(list(some))[:names]] for some in (concepts, others)
    )
    texts = embed_texts(clip, concepts, TEMPLATES).cpu()

    def mean(pack: Drawings, concept: str | None, grounds: Sequence[tuple[str, str]]) -> Tensor:
        scenes = []
        for _ in range(pictures):
            placed = []
            if concept:
                style = str(rng.choice(pack.styles_of(concept)))
                variant = int(rng.integers(len(pack.variants(concept, style))))
                placed = [Placed(concept, style, (0.5, 0.5), 0.6, variant)]
            ground = grounds[int(rng.integers(len(grounds)))]
            image = compose(pack, placed, ground, max(clip.image_size), int(rng.integers(2**31)))
            scenes.append(clip.preprocess(Image.fromarray(image.image)))
        embedded = clip.encode_image(torch.stack(scenes).to(clip.device))
        return normalize(embedded, dim=1).mean(0).cpu()

    everywhere = list(product(BACKGROUNDS, COLOURS))
    own = torch.stack([mean(things, concept, everywhere) for concept in concepts])
    beside = torch.stack([mean(companions, concept, everywhere) for concept in others])
    below = torch.stack([mean(things, None, [ground]) for ground in everywhere])
    centre = own.mean(0)
    half = count // 2
    by_companion = strongest_tasks(own - centre, beside - beside.mean(0), texts, concepts, others,
                           count - half)  # fmt: skip
    taken = {name for task in by_companion for name in task.classes}
    free = [i for i, concept in enumerate(concepts) if concept not in taken]
    grounds = [" ".join(ground) for ground in everywhere]
    by_ground = strongest_tasks((own - centre)[free], below - below.mean(0), texts[free],
                        [concepts[i] for i in free], grounds, half)  # fmt: skip
    return by_companion + by_ground


def strongest_tasks(
    own: Float[Tensor, "concept embed"],
    cues: Float[Tensor, "cue embed"],
    texts: Float[Tensor, "concept embed"],
    concepts: Sequence[str],
    names: Sequence[str],
    count: int,
) -> list[SpuriousTask]:
    """The `count` tasks with the largest pull relative to the classes' distance."""
    said, pulled = own @ texts.T, cues @ texts.T
    found = []
    for a, b in combinations(range(len(concepts)), 2):
        distance = float(said[a, a] - said[a, b] + said[b, b] - said[b, a])
        pull = pulled[:, a] - pulled[:, b]
        allowed = torch.tensor([name not in (concepts[a], concepts[b]) for name in names])
        first = int(pull.masked_fill(~allowed, -torch.inf).argmax())
        second = int(pull.masked_fill(~allowed, torch.inf).argmin())
        found.append((distance, float(pull[first] - pull[second]), a, b, first, second))
    clear = float(np.median([distance for distance, *_ in found]))
    ranked = sorted(
        (one for one in found if one[0] >= max(clear, 1e-6)), key=lambda one: -one[1] / one[0]
    )
    tasks, used = [], set()
    for _, _, a, b, first, second in ranked:
        mine = {concepts[a], concepts[b], names[first], names[second]}
        if len(tasks) < count and len(mine) == 4 and not mine & used:
            used |= mine
            task = SpuriousTask((concepts[a], concepts[b]), (names[first], names[second]))
            tasks.append(task)
    return tasks
