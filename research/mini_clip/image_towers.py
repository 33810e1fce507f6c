"""The trainings of the image towers: photographs and composed scenes -> points of the space."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipneurons.synthetic.captions import BACKGROUNDS, COLOURS, PATTERNS
from clipneurons.synthetic.pictograms import Pictograms
from research.mini_clip import forward, model, photographs
from research.mini_clip.augment import vary
from research.mini_clip.model import SCALE
from research.mini_clip.recipe import VALIDATION_STYLE, Recipe
from research.mini_clip.scene_bank import SCENES, clean_in, load_facts
from research.mini_clip.scene_batches import points_of
from research.mini_clip.trainer import Trainer
from research.mini_clip.word_space import MEDIA, WEIGHT, Space

VALIDATION_IMAGES = 500  # of each data set, while training
FAR = 0.35  # names of other data sets below this cosine are something else


def rivals(anchors: Tensor, members: list[Tensor]) -> Tensor:
    """Which classes an image of each source is told apart from: bool [source, class, class].

    Those of its own source (`members`), and others' that mean something else: a photograph of a
    "Chihuahua" is no mistake for "dog".
    """
    apart = anchors @ anchors.T < FAR
    apart.fill_diagonal_(True)
    masks = apart.repeat(len(members), 1, 1)
    for mask, own in zip(masks, members, strict=True):
        mask[:, own] = True
    return masks


def classification(image: Tensor, anchors: Tensor, shown: Tensor, allowed: Tensor) -> Tensor:
    """Cross-entropy over the classes that are allowed, the weight spread over those shown.

    image [n, d] unit; anchors [class, d] unit; shown [n, k] classes, -1 for none; allowed
    bool [n, class].
    """
    wanted = torch.zeros(len(image), len(anchors), device=image.device)
    wanted.scatter_add_(1, shown.clamp(min=0), (shown >= 0).float())
    wanted = (wanted > 0).float()
    logits = (SCALE * image @ anchors.T).masked_fill(~allowed & (wanted == 0), -1e4)
    return F.cross_entropy(logits, wanted / wanted.sum(1, keepdim=True))


def contrastive(image: Tensor, points: Tensor, shown: Tensor) -> Tensor:
    """CLIP's loss between images and their captions' points, [n, d] unit rows each.

    Captions of the same classes are no negatives.
    """
    key = shown.sort(1).values
    own = torch.arange(len(key), device=image.device)
    same = (key[:, None] == key[None]).all(-1).fill_diagonal_(False)
    logits = (SCALE * image @ points.T).masked_fill(same, -1e4)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


class ImageTrainer(Trainer):
    """What both image towers learn, and from which images."""

    def __init__(
        self,
        recipe: Recipe,
        run: Path,
        device: str,
        pack: Pictograms,
        bfloat16: bool = False,
        start: Path | None = None,
    ):
        self.pack, self.bfloat16 = pack, bfloat16
        self.space = Space.load(run / "space.safetensors")
        tensors = [self.space.vectors[: len(self.space.classes)]]
        tensors += [np.stack([self.space[c] for c in COLOURS])]
        tensors += [np.stack([self.space[PATTERNS[b]] for b in BACKGROUNDS])]
        tensors += [self.space.rotations, np.stack([self.space[m] for m in MEDIA])]
        tensors = [torch.from_numpy(t.copy()).to(device) for t in tensors]
        self.anchors, self.colours, self.patterns, self.rotations, self.media = tensors
        found = photographs.collections(run, self.space.classes, device)
        self.photographs, self.kept_out = found or (None, None)
        self.scenes, self.facts = photographs.on_device(run / SCENES, device), load_facts(run)
        sources = self.photographs.rows.values() if found else ()
        members = [torch.from_numpy(np.unique(self.photographs.label[rows])) for rows in sources]
        members.append(torch.tensor([self.space.classes.index(c) for c in pack.concepts]))
        self.rivals = rivals(self.anchors, members)
        self.start = start
        super().__init__(recipe, run, device)

    def build(self) -> nn.Module:
        visual = model.build(self.recipe.stage).visual
        if self.start:
            visual.load_state_dict(model.visual_of(self.start))
        return visual

    def side(self) -> int:
        """Of the images at this stage of the training."""
        return 32 if self.progress < self.recipe.small else 64

    def in_part(self) -> bool:
        """Whether the images, past the small ones, are still seen in part only."""
        return self.recipe.small <= self.progress < self.recipe.few

    def batch(self, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images float [n, 3, size, size] in -1..1, classes shown [n, 3] (-1: none), the number
        of their source [n] and their captions' points [n, d]."""
        count = self.recipe.batch
        scenes = round(count * self.recipe.scenes) if self.photographs else count
        rows = self.scene_rows(scenes)
        facts = self.facts[torch.from_numpy(rows)].to(self.device)
        images = [vary(photographs.taken(self.scenes, rows), 0.85, False, size)]
        shown, source = facts.shown, torch.full((scenes,), len(self.rivals) - 1)
        tables = (self.anchors, self.colours, self.patterns, self.rotations)
        points = points_of(facts, *tables) + self.medium(scenes, 1)
        if scenes < count:
            image, label, of = self.photographs.sample(count - scenes, self.rng)
            label = label.to(self.device)
            images.append(vary(image, 0.3, True, size))
            shown = torch.cat([shown, F.pad(label[:, None], (0, 2), value=-1)])
            source = torch.cat([source, of])
            points = torch.cat([points, self.anchors[label] + self.medium(len(label), 0)])
        return torch.cat(images) * 2 - 1, shown, source.to(self.device), F.normalize(points, dim=1)

    def scene_rows(self, count: int) -> np.ndarray:
        """Which scenes of the bank, in its order: clean ones at first, a quarter of them later."""
        clean = self.rng.random(count) < max(0.25, 1 - 5 * self.progress)
        divide, end = clean_in(len(self.scenes)), len(self.scenes)
        low, high = np.where(clean, 0, divide), np.where(clean, divide, end)
        return np.sort(self.rng.integers(low, high))

    def medium(self, count: int, which: int) -> Tensor:
        """What "a photo of" (0) or "a drawing of" (1) adds to a caption's point, half the time."""
        said = torch.rand(count, 1, device=self.device) < 0.5
        return WEIGHT["medium"] * said * self.media[which]

    def agreement(self, out: Tensor, shown: Tensor, source: Tensor, points: Tensor) -> Tensor:
        """The loss of embeddings [n, d]."""
        out = F.normalize(out.float(), dim=1)
        # With several objects, only what is a rival of each counts as wrong.
        masks = self.rivals[source[:, None], shown.clamp(min=0)]
        allowed = (masks | (shown < 0)[..., None]).all(1)
        loss = classification(out, self.anchors, shown, allowed)
        return loss + self.recipe.pairs * contrastive(out, points, shown)

    def embed(self, images: Tensor) -> Tensor:
        """Embeddings of images in -1..1, in evaluation mode."""
        raise NotImplementedError

    def figures(self) -> str:
        figures = [f"{VALIDATION_STYLE} {self.drawings():.1%}"]
        for source, rows in (self.kept_out.rows if self.kept_out else {}).items():
            if source == "caltech-101":  # held out of every choice
                continue
            rows = np.random.default_rng(0).permutation(rows)[:VALIDATION_IMAGES]
            images, label = self.kept_out.take(np.sort(rows))
            of = self.photographs.rows.get(source, rows)
            own = torch.from_numpy(np.unique(self.photographs.label[of]))
            figures.append(f"{source} {self.accuracy(images, label, own):.1%}")
        return " ".join(figures)

    def accuracy(self, images: Tensor, label: Tensor, classes: Tensor) -> float:
        """Top-1 of uint8 images [n, 3, 64, 64] among some classes."""
        images = images.to(self.device).float() / 127.5 - 1
        images = F.avg_pool2d(images, 2) if self.progress < self.recipe.small else images
        out = torch.cat([self.embed(part) for part in images.split(128)])
        guess = (out @ self.anchors[classes.to(self.device)].T).argmax(1).cpu()
        return float((classes[guess] == label).float().mean())

    def drawings(self) -> float:
        """Top-1 on clean drawings of the style held back from training, among all concepts."""
        labels, images = [], []
        for concept in self.pack.concepts:
            for rgba in self.pack.variants(concept, VALIDATION_STYLE)[:1]:
                alpha = rgba[..., 3:] / 255
                images.append(rgba[..., :3] * alpha + 255 * (1 - alpha))
                labels.append(self.space.classes.index(concept))
        image = torch.from_numpy(np.stack(images)).float().permute(0, 3, 1, 2)
        image = F.interpolate(F.pad(image, (10, 10, 10, 10), value=255.0), size=64, mode="area")
        own = torch.tensor([self.space.classes.index(c) for c in self.pack.concepts])
        return self.accuracy(image, torch.tensor(labels), own)


class ViTTrainer(ImageTrainer):
    """A ViT whose class token listens late (`forward.vit`)."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # On a CPU a copy in bf16 is faster than autocast.
        copied = self.bfloat16 and self.device == "cpu"
        self.copy = forward.BFloat16Copy(self.model) if copied else None

    def loss(self) -> Tensor:
        recipe = self.recipe
        keep = 32 if self.in_part() else 0
        images, *truth = self.batch(self.side())
        work = self.copy.work if self.copy else self.model
        images = images.to(work.conv1.weight.dtype)
        with torch.autocast("cuda", torch.bfloat16, enabled=self.bfloat16 and not self.copy):
            out, besides, bypass = forward.vit(work, images, recipe.listens, keep)
        loss = self.agreement(out, *truth)
        return loss + recipe.penalty * besides + recipe.bypass * bypass

    def gradients(self) -> None:
        if self.copy:
            self.copy.refresh()
        super().gradients()
        if self.copy:
            self.copy.gradients()

    def embed(self, images: Tensor) -> Tensor:
        return forward.vit(self.model, images)[0]


class ResNetTrainer(ImageTrainer):
    """A ModifiedResNet, which sees images at twice their size: its pooling wants 4 x 4 places."""

    def build(self) -> nn.Module:
        return super().build().to(memory_format=torch.channels_last)

    def side(self) -> int:
        return 48 if self.in_part() else super().side()

    def loss(self) -> Tensor:
        images, *truth = self.batch(self.side())
        kind = torch.device(self.device).type
        with torch.autocast(kind, torch.bfloat16, enabled=self.bfloat16):
            out = self.embed(images)
        return self.agreement(out, *truth)

    def embed(self, images: Tensor) -> Tensor:
        images = F.interpolate(images, scale_factor=2, mode="bicubic")
        return forward.resnet(self.model, images.contiguous(memory_format=torch.channels_last))
