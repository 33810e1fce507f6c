"""The training of the text tower: captions -> points of the space."""

from pathlib import Path

import numpy as np
import torch
from open_clip import SimpleTokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from clipneurons.synthetic import captions
from clipneurons.synthetic.captions import (
    BACKGROUNDS,
    COLOURS,
    PATTERNS,
    PROMPTS,
    RELATIONS,
    article,
    write_caption,
)  # fmt: skip
from research.mini_clip import model
from research.mini_clip.recipe import Recipe
from research.mini_clip.scene_batches import Facts, points_of
from research.mini_clip.trainer import Trainer
from research.mini_clip.word_space import MEDIA, WEIGHT, Space

# Openings that say what kind of image it is; the others say nothing.
SAID = {"photograph": ("a photo of ", "a photograph of "),
        "drawing": ("a drawing of ", "an icon of ", "a pictogram of ")}  # fmt: skip
BATCH = 256


def medium_of(text: str) -> int:
    """Which of `MEDIA` a caption says, -1 for none."""
    return next((i for i, kind in enumerate(MEDIA) if text.startswith(SAID[kind])), -1)


class Captions:
    """Random captions and their points: scenes, single classes, and bare words."""

    def __init__(self, space: Space, rng: np.random.Generator, device: str = "cpu"):
        self.space, self.rng = space, rng
        tables = [space.vectors, np.stack([space[c] for c in COLOURS])]
        tables += [np.stack([space[PATTERNS[b]] for b in BACKGROUNDS]), space.rotations]
        self.tables = [torch.from_numpy(table).to(device) for table in tables]
        self.media = torch.from_numpy(np.stack([space[m] for m in MEDIA])).to(device)

    def scene(self) -> tuple[str, list[list[int]]]:
        """A caption of several things: text, and [shown, colours, ground, [relation]]."""
        rng, names, classes = self.rng, list(COLOURS), len(self.space.classes)
        count = int(rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15]))
        pool = self.space.things if rng.random() < 0.25 else classes
        shown = rng.choice(pool, count, replace=False).tolist()
        colours = [int(rng.integers(len(names))) if rng.random() < 0.35 else -1 for _ in shown]
        relation = int(rng.integers(4)) if count > 1 and rng.random() < 0.5 else -1
        ground = [-1, -1]
        if rng.random() < 0.4:
            ground = [int(rng.integers(len(BACKGROUNDS))), int(rng.integers(len(names)))]
        facts = captions.Facts(
            tuple(self.space.words[i] for i in shown),
            tuple(names[c] if c >= 0 else None for c in colours),
            RELATIONS[relation] if relation >= 0 else None,
            (BACKGROUNDS[ground[0]], names[ground[1]]) if ground[0] >= 0 else None,
        )
        text = write_caption(facts, rng)
        if rng.random() < 0.25:
            for opening in captions.OPENINGS:
                text = text.removeprefix(opening)
            text = str(rng.choice(SAID["photograph"])) + text
        rest = [-1] * (3 - count)
        return text, [shown + rest, colours + rest, ground, [relation]]

    def word(self) -> tuple[str, list[list[int]]]:
        """A class, or any word, alone or in a prompt."""
        rng = self.rng
        classes = rng.random() < 0.4
        index = int(rng.integers(len(self.space.classes) if classes else len(self.space.words)))
        word = self.space.words[index]
        if rng.random() < 0.4:
            text = word
        else:
            prompts = [*PROMPTS, *(opening + "{}" for opening in SAID["photograph"])]
            text = str(rng.choice(prompts)).format(article(word) if rng.random() < 0.7 else word)
        return text, [[index, -1, -1], [-1] * 3, [-1, -1], [-1]]

    def batch(self, count: int) -> tuple[list[str], Tensor]:
        """Captions and their points [count, DIM]."""
        made = [self.scene() if self.rng.random() < 0.45 else self.word() for _ in range(count)]
        texts = [text for text, _ in made]
        device = self.media.device
        columns = zip(*(facts for _, facts in made), strict=True)
        shown, colour, ground, relation = (torch.tensor(c, device=device) for c in columns)
        points = points_of(Facts(shown, colour, ground, relation[:, 0]), *self.tables)
        medium = torch.tensor([medium_of(text) for text in texts], device=device)
        said = torch.where((medium >= 0)[:, None], self.media[medium.clamp(min=0)], 0.0)
        return texts, F.normalize(points + WEIGHT["medium"] * said, dim=1)


def used_tokens(texts: list[str]) -> Tensor:
    """Sorted ids of every token these texts need, with padding, start and end."""
    ids = SimpleTokenizer(context_length=model.TEXT["context_length"])(texts)
    return torch.unique(torch.cat([ids.flatten(), torch.tensor([0])]))


def caption_tokens(space: Space) -> Tensor:
    """Ids of the tokens that captions can hold."""
    openings = " ".join((*PROMPTS, *captions.OPENINGS, *SAID["photograph"]))
    plain = openings.replace("{}", "") + " a an and on of left right above below background"
    return used_tokens([*space.words, *plain.split()])


def expand(text: dict, tokens: Tensor) -> dict:
    """A trained text tower with its token table back at open_clip's full vocabulary."""
    rows = text["token_embedding.weight"]
    table = torch.zeros(model.VOCABULARY, rows.shape[1])
    table[tokens] = rows
    return {**text, "token_embedding.weight": table}


class TextTrainer(Trainer):
    """Trains the rows of the token table that captions can use."""

    def __init__(self, recipe: Recipe, run: Path, device: str):
        self.space = Space.load(run / "space.safetensors")
        self.tokenizer = SimpleTokenizer(context_length=model.TEXT["context_length"])
        self.tokens = caption_tokens(self.space)
        super().__init__(recipe, run, device)
        self.captions = Captions(self.space, self.rng, device)

    def build(self) -> nn.Module:
        clip = model.build("vit")
        del clip.visual
        clip.token_embedding = nn.Embedding(len(self.tokens), model.TEXT["width"])
        rows = nn.init.normal_(clip.token_embedding.weight.data, std=0.02)
        # A word of one token begins where it is to end up.
        ids = self.tokenizer(self.space.words)
        single = (ids > 0).sum(1) == 3
        rows[torch.searchsorted(self.tokens, ids[single, 1])] = (
            0.3 * torch.from_numpy(self.space.vectors)[single]
        )
        clip.logit_scale.requires_grad_(False)
        return clip

    def encode(self, texts: list[str]) -> Tensor:
        """open_clip's CLIP.encode_text, cut to the longest text; unit rows [n, DIM]."""
        ids = torch.searchsorted(self.tokens, self.tokenizer(texts))
        ids = ids[:, : int((ids > 0).sum(1).max())].to(self.device)
        m, length = self.model, ids.shape[1]
        x = m.token_embedding(ids) + m.positional_embedding[:length]
        x = m.ln_final(m.transformer(x, attn_mask=m.attn_mask[:length, :length]))
        ends = x[torch.arange(len(x), device=self.device), ids.argmax(1)]
        return F.normalize(ends @ m.text_projection, dim=1)

    def loss(self) -> Tensor:
        texts, points = self.captions.batch(self.recipe.batch)
        out = self.encode(texts)
        own = torch.arange(len(out), device=self.device)
        same = (points @ points.T > 0.97).fill_diagonal_(False)
        logits = (10 * out @ points.T).masked_fill(same, -1e4)
        return 3 * (1 - (out * points).sum(1)).mean() + F.cross_entropy(logits, own)

    def figures(self) -> str:
        held = Captions(self.space, np.random.default_rng(1), self.device)
        texts, points = held.batch(BATCH)
        count = len(self.space.classes)
        names = torch.cat([self.encode(self.space.words[i : i + BATCH])
                           for i in range(0, count, BATCH)])[:count]  # fmt: skip
        vectors = torch.from_numpy(self.space.vectors[:count]).to(self.device)
        right = (names @ vectors.T).argmax(1).cpu() == torch.arange(count)
        captions_cosine = (self.encode(texts) * points).sum(1).mean()
        return (
            f"cosine of captions {captions_cosine:.3f}, of classes "
            f"{(names * vectors).sum(1).mean():.3f}, nearest {right.float().mean():.1%}"
        )


def weights(run: Path) -> dict:
    """The run's text tower, whole."""
    state = torch.load(run / "text.pt", map_location="cpu", weights_only=True)["average"]
    state.pop("logit_scale")
    return expand(state, caption_tokens(Space.load(run / "space.safetensors")))
