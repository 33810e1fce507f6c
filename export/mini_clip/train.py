"""Train the small CLIPs that ship with the project.

    python -m export.mini_clip.train space
    python -m export.mini_clip.train text|vit|rn [--minutes M] [--run FOLDER]
    python -m export.mini_clip.train export

`space` makes the word vectors and `text` the tower that knows them; both are needed only for
a new space. The image towers learn the points of the run's text tower or, where there is none,
of the shipped one, from random weights or from `--start FOLDER`, an open_clip folder. Every
stage goes on from its checkpoint in the run folder, also after a kill. One thread a process is
fastest: run the stages side by side. The learning rate follows the time used (constant, then
down to zero in the last 40%), so `--minutes` is the total; give more to go on from a finished
run.
"""

import argparse
import json
import math
import os
import sys
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from clipneurons.synthetic.pictograms import ARTIFACTS, load_pictograms
from export.common.errors import UserError, reported
from export.mini_clip import data, visual_space
from export.mini_clip import model as mini_model
from export.mini_clip.model import VISION
from export.mini_clip.word_space import Space, text_batch

VALIDATION_STYLE = "fxemoji"


@dataclass
class Recipe:
    """What may be varied; kept beside the checkpoint. 0 as Muon's rate is AdamW for everything."""

    stage: str
    minutes: float = 80
    batch: int = 128
    muon: float = 0.0
    adam: float = 1.5e-3
    tokens: int = 20
    pairs: float = 0.2  # final weight of the contrast between images and captions
    lines: float = 0.25  # final share of line icons among the drawings
    seed: int = 0
    steps: int = 0  # instead of minutes, when reproducibility matters


# What made the released weights.
RECIPES = {
    "text": Recipe("text", minutes=20, muon=0.02, adam=2e-3),
    "vit": Recipe("vit", minutes=84),
    "rn": Recipe("rn", minutes=92, batch=64, adam=2e-3),
}


def schedule(progress: float, step: int) -> float:
    """Warm-up over 30 steps, constant, then linear to zero from 60%."""
    return min(1, (step + 1) / 30) * min(1.0, max(0.0, (1 - progress) / 0.4))


def patch_forward(visual, image, cover, tokens: int):
    """A ViT's class token [n, width] before projection, from its `tokens` most covered patches
    (with some chance in it); all of them if 0."""
    size = visual.patch_size[0]
    covered = F.avg_pool2d(cover, size).flatten(1)
    keep = (covered + 0.35 * torch.rand_like(covered)).topk(tokens or covered.shape[1], 1).indices
    patches = F.unfold(image, size, stride=size).transpose(1, 2)
    patches = patches.gather(1, keep[..., None].expand(-1, -1, patches.shape[2]))
    x = patches @ visual.conv1.weight.flatten(1).T
    x = x + visual.positional_embedding[1:][keep]
    first = visual.class_embedding + visual.positional_embedding[0]
    x = torch.cat([first.expand(len(x), 1, -1), x], 1)
    x = visual.transformer(visual.ln_pre(x))
    return visual.ln_post(x[:, 0])


def leave_out_class_token(mlp, inputs, output):
    """Forward hook: half of the images get nothing from this MLP into their class token.

    A small ViT would rather work in its class token than in the patches; large CLIPs do not
    (2310.05916: MLPs hardly write to the output directly), and the lens reads the patches.
    """
    if not mlp.training:
        return output
    kept = torch.ones(output.shape[:2], device=output.device)
    kept[:, 0] = (torch.rand(len(output), device=output.device) < 0.5).float()
    return output * kept[..., None]


def convolution_forward(visual, image):
    """A ResNet's last stage [n, channels, h, w], before attention pooling."""
    x = visual.stem(image)
    for stage in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        x = stage(x)
    return x


def contrastive(image, points, shown, anchors, weight: float = 1.0):
    """Contrast images with caption points, and classify over all concepts.

    image, points [n, d] unit; shown [n, k] concepts; anchors [c, d] unit. Captions of the
    same concepts in a batch are no negatives.
    """
    logits = mini_model.SCALE * image @ points.T
    key = shown.sort(1).values
    same = (key[:, None] == key[None]).all(-1) & ~torch.eye(len(key), dtype=torch.bool)
    logits = logits.masked_fill(same.to(logits.device), -1e4)
    index = torch.arange(len(logits), device=logits.device)
    pairs = (F.cross_entropy(logits, index) + F.cross_entropy(logits.T, index)) / 2
    wanted = F.one_hot(shown, len(anchors)).float().mean(1).to(image.device)
    return weight * pairs + F.cross_entropy(mini_model.SCALE * image @ anchors.T, wanted)


def training_packs(run: Path) -> list:
    """The shipped drawings, and the training-only line icons where they have been made."""
    lines = run / "lines.safetensors"
    return [load_pictograms(), *([load_pictograms(lines)] if lines.is_file() else [])]


class Trainer:
    """One stage: model, optimisers, moving average, random states; saved and restored whole."""

    def __init__(self, recipe: Recipe, run: Path, device: str = "cpu", start: Path | None = None):
        self.recipe, self.device = recipe, device
        self.path = run / f"{recipe.stage}.pt"
        self.pack = load_pictograms()
        words = run / "space.safetensors"
        text = recipe.stage == "text"
        self.space = Space.load(words) if text else points_of(run, self.pack)
        anchors = np.stack([self.space[c] for c in self.pack.concepts])
        self.anchors = torch.from_numpy(anchors).to(device)
        torch.manual_seed(recipe.seed)
        self.rng = np.random.default_rng(recipe.seed)
        self._model(run)
        if recipe.stage == "rn":  # half as long again on a CPU without
            self.model = self.model.to(memory_format=torch.channels_last)
        if start:
            self.model.load_state_dict(visual_of(start))
        self.opts = mini_model.optimisers(self.model, recipe.muon, recipe.adam)
        self.rates = [[g["lr"] for g in o.param_groups] for o in self.opts]
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.step, self.seconds = 0, 0.0
        if self.path.is_file():
            self.restore()

    def _model(self, run: Path) -> None:
        stage = self.recipe.stage
        clip = mini_model.build("vit" if stage == "text" else stage)
        if stage != "text":
            self.sprites = data.Sprites.load(training_packs(run), (VALIDATION_STYLE,))
            self.model = clip.visual.to(self.device)
            if stage == "vit":
                for block in self.model.transformer.resblocks:
                    block.mlp.register_forward_hook(leave_out_class_token)
            return
        from open_clip import SimpleTokenizer

        # Train the rows captions can use; export puts the table back to full size.
        del clip.visual
        self.tokenizer = SimpleTokenizer(context_length=mini_model.TEXT["context_length"])
        self.tokens = caption_tokens(self.space)
        clip.token_embedding = torch.nn.Embedding(len(self.tokens), mini_model.TEXT["width"])
        torch.nn.init.normal_(clip.token_embedding.weight, std=0.02)
        clip.logit_scale.requires_grad_(False)
        self.model = clip.to(self.device)

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(), "average": self.average,
            "opts": [opt.state_dict() for opt in self.opts], "step": self.step,
            "seconds": self.seconds, "torch": torch.get_rng_state(),
            "numpy": json.dumps(self.rng.bit_generator.state), "recipe": asdict(self.recipe),
        }  # fmt: skip
        partial = self.path.with_suffix(".tmp")
        torch.save(state, partial)
        os.replace(partial, self.path)

    def restore(self) -> None:
        state = torch.load(self.path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        for opt, saved in zip(self.opts, state["opts"], strict=True):
            opt.load_state_dict(saved)
        self.step, self.seconds = state["step"], state["seconds"]
        torch.set_rng_state(state["torch"].cpu())
        self.rng.bit_generator.state = json.loads(state["numpy"])

    @property
    def progress(self) -> float:
        if self.recipe.steps:
            return self.step / self.recipe.steps
        return self.seconds / (60 * self.recipe.minutes)

    def loss(self) -> torch.Tensor:
        n, done = self.recipe.batch, self.progress
        if self.recipe.stage == "text":
            texts, points = text_batch(self.space, self.pack, self.rng, n)
            ids = torch.searchsorted(self.tokens, self.tokenizer(texts)).to(self.device)
            # Trailing padding changes nothing under the causal mask.
            out = F.normalize(self.encode_text(ids[:, : int((ids > 0).sum(1).max())]), dim=1)
            points = points.to(self.device)
            logits = 10 * out @ points.T
            own = torch.arange(n, device=self.device)
            same = (points @ points.T > 0.97).fill_diagonal_(False)
            logits = logits.masked_fill(same, -1e4)
            return 3 * (1 - (out * points).sum(1)).mean() + F.cross_entropy(logits, own)
        # Large, centred and as drawn until the towers see shapes at all; then wider.
        objects, later = 1, max(0.0, (done - 0.2) / 0.5)
        if later > 0:
            objects = int(self.rng.choice([1, 2, 3], p=[0.75, 0.2, 0.05]))
        easy = max(0.3, 1 - later)
        if later > 0 and self.rng.random() < 0.2:
            easy = self.rng.random()
        vary = 0.1 + 0.5 * min(1.0, later)
        emoji = 1 - self.recipe.lines * min(1.0, done / 0.4)
        scenes = data.batch(
            self.sprites, self.space, self.pack.concepts, n, objects, self.rng, easy, vary, emoji
        )
        image, cover = ((scenes.image - 0.5) / 0.5).to(self.device), scenes.cover.to(self.device)
        if self.recipe.stage == "vit":
            # All patches cost three times as much; a tower that never saw empty ones is lost there.
            few = self.rng.random() > min(1.0, max(0.0, (done - 0.3) / 0.5))
            tokens = self.recipe.tokens if few else 0
            out = patch_forward(self.model, image, cover, tokens) @ self.model.proj
        else:
            last = convolution_forward(
                self.model,
                F.interpolate(image, scale_factor=2, mode="bicubic").contiguous(
                    memory_format=torch.channels_last
                ),
            )
            out = self.model.attnpool(last)
        points = scenes.points.to(self.device)
        pairs = self.recipe.pairs * min(1.0, later)
        out = F.normalize(out, dim=1)
        return contrastive(out, points, scenes.shown, self.anchors, pairs)

    def encode_text(self, ids):
        """open_clip's CLIP.encode_text for ids of any length up to the context's."""
        m, length = self.model, ids.shape[1]
        x = m.token_embedding(ids) + m.positional_embedding[:length]
        x = m.ln_final(m.transformer(x, attn_mask=m.attn_mask[:length, :length]))
        return x[torch.arange(len(x), device=ids.device), ids.argmax(1)] @ m.text_projection

    def train_step(self) -> float:
        started = time.monotonic()
        factor = schedule(self.progress, self.step)
        for opt, rates in zip(self.opts, self.rates, strict=True):
            for group, rate in zip(opt.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        self.model.train()
        loss = self.loss()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 2.0)
        for opt in self.opts:
            opt.step()
            opt.zero_grad(set_to_none=True)
        decay = min(0.995, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - decay)
                else:
                    self.average[name].copy_(value)
        self.step += 1
        self.seconds += time.monotonic() - started
        return loss.item()

    @torch.no_grad()
    def validate(self) -> str:
        """Top-1 of the average on clean drawings of the style held back from training, and on
        trained drawings; for text the mean cosine to the points."""
        saved = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        self.model.eval()
        if self.recipe.stage == "text":
            texts, points = text_batch(self.space, self.pack, np.random.default_rng(1), 256)
            ids = torch.searchsorted(self.tokens, self.tokenizer(texts)).to(self.device)
            out = F.normalize(self.encode_text(ids), dim=1).cpu()
            report = f"cosine {(out * points).sum(1).mean():.3f}"
        else:
            report = " ".join(
                f"{style} {self.accuracy(style):.1%}" for style in (VALIDATION_STYLE, "noto")
            )
        self.model.load_state_dict(saved)
        return report

    def accuracy(self, style: str) -> float:
        labels, images = [], []
        for i, concept in enumerate(self.pack.concepts):
            for rgba in self.pack.variants(concept, style)[:1]:
                a = rgba[..., 3:] / 255.0
                images.append(rgba[..., :3] / 255.0 * a + 1 - a)
                labels.append(i)
        image = torch.from_numpy(np.stack(images)).float().permute(0, 3, 1, 2)
        image = F.interpolate(F.pad(image, (10, 10, 10, 10), value=1.0), size=64, mode="area")
        if self.recipe.stage == "rn":
            image = F.interpolate(image, scale_factor=2, mode="bicubic")
        out = torch.cat(
            [self.model(part) for part in ((image - 0.5) / 0.5).to(self.device).split(128)]
        )
        guess = (out @ self.anchors.T).argmax(1).cpu()
        return float((guess == torch.tensor(labels)).float().mean())


def train(
    recipe: Recipe, run: Path, device: str, start: Path | None = None, every: float = 120.0
) -> None:
    trainer = Trainer(recipe, run, device, start)
    print(f"{recipe}\nfrom step {trainer.step}", flush=True)
    last, losses = time.monotonic(), []
    while trainer.progress < 1:
        losses.append(trainer.train_step())
        if not math.isfinite(losses[-1]):
            raise RuntimeError(f"the loss is not finite at step {trainer.step}")
        if time.monotonic() - last > every or trainer.progress >= 1:
            print(
                f"{time.strftime('%H:%M')} step {trainer.step} {trainer.progress:.0%} "
                f"loss {np.mean(losses):.3f} {trainer.validate()} "
                f"{trainer.step * recipe.batch / trainer.seconds:.0f}/s",
                flush=True,
            )
            trainer.save()
            last, losses = time.monotonic(), []
    trainer.save()


def caption_tokens(space: Space) -> torch.Tensor:
    """Ids of the tokens that captions can hold."""
    plain = "a an and on of left right above below picture drawing icon image pictogram background"
    return mini_model.used_tokens([*space.words, plain])


def text_weights(run: Path) -> dict:
    """The text tower's weights: the run's own or, if none was trained there, the shipped one's."""
    if (run / "text.pt").is_file():
        average = torch.load(run / "text.pt", map_location="cpu", weights_only=True)["average"]
        average.pop("logit_scale")
        return mini_model.expand(average, caption_tokens(Space.load(run / "space.safetensors")))
    whole = load_file(str(ARTIFACTS / "mini-vit" / mini_model.WEIGHTS))
    return {k: v for k, v in whole.items() if not k.startswith(("visual.", "logit_scale"))}


def points_of(run: Path, pack) -> Space:
    """What the image towers learn: words as the text tower has them."""
    path = run / "points.safetensors"
    if not path.is_file():
        model = mini_model.build("vit").eval()
        model.load_state_dict(text_weights(run), strict=False)
        Space.of_tower(model, pack).save(path)
    return Space.load(path)


def visual_of(folder: Path) -> dict:
    """The image tower's weights in an open_clip folder."""
    weights = load_file(str(folder / mini_model.WEIGHTS))
    return {
        name.removeprefix("visual."): value.float() if value.is_floating_point() else value
        for name, value in weights.items()
        if name.startswith("visual.")
    }


def export(run: Path, out: Path) -> None:
    """Write artifacts/mini-vit and artifacts/mini-rn from the averages in the run folder."""
    if not any((run / f"{kind}.pt").is_file() for kind in VISION):
        raise UserError(f"{run} holds no trained tower: run `train_mini vit` with this --run first")
    text = text_weights(run)
    for kind in VISION:
        if (run / f"{kind}.pt").is_file():
            state = torch.load(run / f"{kind}.pt", map_location="cpu", weights_only=True)
            mini_model.export(kind, state["average"], text, out / f"mini-{kind}")
            print(out / f"mini-{kind}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("stage", choices=("space", *RECIPES, "export"))
    parser.add_argument("--run", type=Path, default=Path("out/mini"))
    parser.add_argument("--out", type=Path, default=ARTIFACTS, help="export: where the folders go")
    parser.add_argument(
        "--start",
        type=Path,
        help="open_clip folder whose image tower to begin with (a run with a checkpoint goes on)",
    )
    for option in fields(Recipe)[1:]:
        parser.add_argument(f"--{option.name}", type=option.type, help="default: the released")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    args.run.mkdir(parents=True, exist_ok=True)
    if args.device == "cpu":
        torch.set_num_threads(1)
    if args.stage == "space":
        visual_space.prepare(args.run, training_packs(args.run), (VALIDATION_STYLE,))
    elif args.stage == "export":
        export(args.run, args.out)
    else:
        given = {option.name: getattr(args, option.name) for option in fields(Recipe)[1:]}
        given = {name: value for name, value in given.items() if value is not None}
        recipe = replace(RECIPES[args.stage], **given)
        train(recipe, args.run, args.device, args.start)


if __name__ == "__main__":
    sys.exit(reported(main))
