"""What the shipped small CLIPs can do: python -m export.mini_clip.evaluate [--write]

Uses only files of the repository (and photographs, where `--photographs` names some); everything
is seeded, so the same weights give the same table. `--write` puts the table into the model
cards MODEL.md between their markers; a test holds them to it.
"""

import argparse
import json
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from torch.nn import functional as F

from clipneurons.synthetic.captions import PROMPTS, Facts, article, write_caption
from clipneurons.synthetic.pictograms import ARTIFACTS, Pictograms, load_pictograms
from clipneurons.synthetic.scenes import Placed, SceneConfig, Scenes, compose, relation
from export.common.errors import reported

TEN = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TOWERS = ("mini-vit", "mini-rn")
BEGIN, END = "<!-- evaluation -->", "<!-- /evaluation -->"


class MiniClip:
    """An open_clip folder as two functions: images and texts to unit embeddings."""

    def __init__(self, folder: Path):
        import open_clip

        name = f"local-dir:{folder}"
        self.model, _, _ = open_clip.create_model_and_transforms(name, require_pretrained=True)
        self.model.eval().float()
        self.tokenize = open_clip.get_tokenizer(name)
        config = json.loads((folder / "open_clip_config.json").read_text())
        self.size = config["model_cfg"]["vision_cfg"]["image_size"]
        self.mean, self.std = (config["preprocess_cfg"][key][0] for key in ("mean", "std"))

    @torch.inference_mode()
    def images(self, images: list[np.ndarray]) -> torch.Tensor:
        """uint8 [H, W, 3] each -> unit rows [n, d]."""
        side = (self.size, self.size)
        resized = [np.asarray(Image.fromarray(i).resize(side, Image.BICUBIC)) for i in images]
        pixels = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float() / 255
        parts = ((pixels - self.mean) / self.std).split(128)
        return torch.cat([F.normalize(self.model.encode_image(part), dim=1) for part in parts])

    @torch.inference_mode()
    def texts(self, texts: list[str]) -> torch.Tensor:
        parts = [self.tokenize(texts[i : i + 512]) for i in range(0, len(texts), 512)]
        return torch.cat([F.normalize(self.model.encode_text(part), dim=1) for part in parts])

    def classes(self, names) -> torch.Tensor:
        """Zero-shot classifier rows [classes, d]: the mean over prompts."""
        texts = [prompt.format(article(name)) for name in names for prompt in PROMPTS]
        rows = self.texts(texts).view(len(names), len(PROMPTS), -1).mean(1)
        return F.normalize(rows, dim=1)


def top(images: torch.Tensor, classes: torch.Tensor, labels: list[int]) -> tuple[float, float]:
    """Top-1 and top-5 accuracy in percent."""
    order = (images @ classes.T).topk(min(5, len(classes)), 1).indices
    hits = order == torch.tensor(labels)[:, None]
    return 100 * hits[:, 0].float().mean().item(), 100 * hits.any(1).float().mean().item()


def clean(pack: Pictograms, style: str, concepts) -> tuple[list[np.ndarray], list[int]]:
    """Every drawing of a style, centred on white, with its label."""
    images, labels = [], []
    for label, concept in enumerate(concepts):
        for variant in range(len(pack.entries.get((concept, style), ()))):
            scene = compose(pack, [Placed(concept, style, scale=0.75, variant=variant)])
            images.append(scene.image)
            labels.append(label)
    return images, labels


def retrieval(clip: MiniClip, pack: Pictograms, count: int = 256) -> tuple[float, float]:
    """R@1 in percent, image to text and text to image, over two-object scenes and captions
    that name both objects, how they lie and the background."""
    scenes = Scenes(pack, SceneConfig(objects=(2, 2)), count, seed=7001)
    rng, captions = np.random.default_rng(7001), []
    for i in range(count):
        one, two = scenes[i].objects
        centres = [((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in (one.box, two.box)]
        lie = relation([Placed("", "", centre) for centre in centres])
        ground = (scenes[i].background, scenes[i].background_colour)
        captions.append(write_caption(Facts((one.name, two.name), (None, None), lie, ground), rng))
    similarity = clip.images([scenes[i].image for i in range(count)]) @ clip.texts(captions).T
    own = torch.arange(count)
    return tuple(100 * (similarity.argmax(d) == own).float().mean().item() for d in (1, 0))


def evaluate(folder: Path) -> dict[str, list[float]]:
    """The table's rows: name -> percentages."""
    clip, pack, heldout = MiniClip(folder), load_pictograms(), load_pictograms(heldout=True)
    concepts, rows = pack.concepts, {}
    every, ten = clip.classes(concepts), clip.classes(TEN)
    # fxemoji is in the pack but chose the recipe, unseen in training: a row of its own.
    styles = tuple(style for style in pack.styles if style != "fxemoji")
    for name, objects in (("one object", (1, 1)),):
        scenes = Scenes(pack, SceneConfig(objects=objects, styles=styles), 1000, seed=7000)
        images = clip.images([scenes[i].image for i in range(1000)])
        labels = [concepts.index(scenes[i].objects[0].name) for i in range(1000)]
        rows[f"new scenes of trained styles, {name}: top-1 / top-5"] = top(images, every, labels)
    for style, source, role in (
        ("fxemoji", pack, "validation style"),
        ("openmoji", heldout, "held out"),
        ("emojione-v1", heldout, "held out, shift"),
    ):
        images, labels = clean(source, style, concepts)
        rows[f"{style} ({role}), {len(concepts)} concepts: top-1 / top-5"] = top(
            clip.images(images), every, labels
        )
        images, labels = clean(source, style, TEN)
        rows[f"{style} ({role}), ten classes: top-1"] = top(clip.images(images), ten, labels)[:1]
    rows["retrieval, 256 two-object scenes: R@1 image to text / text to image"] = retrieval(
        clip, pack
    )
    return rows


def photographs(clip: MiniClip, path: Path, source: str) -> tuple[float, float]:
    """Top-1 and top-5 in percent on photographs of one data set: far outside of
    what the small CLIPs were trained on."""
    with safe_open(str(path), "np") as file:
        classes = json.loads(file.metadata()["classes"])
        label, split, offsets = (file.get_tensor(key) for key in ("label", "split", "offsets"))
        own = [i for i, entry in enumerate(classes) if entry["source"] == source]
        rows = np.flatnonzero(np.isin(label, own))
        held = rows[split[rows] == 1]
        # Training saw no photograph at all, so that of CIFAR-10 any will do.
        rows = held if len(held) else np.random.default_rng(0).choice(rows, 5000, replace=False)
        packed = file.get_slice("webp")
        images = []
        for row in rows:
            data = packed[int(offsets[row]) : int(offsets[row + 1])].tobytes()
            images.append(np.asarray(Image.open(BytesIO(data)).convert("RGB")))
    names = [classes[i]["name"].split(",")[0] for i in own]
    labels = [own.index(label[row]) for row in rows]
    return top(clip.images(images), clip.classes(names), labels)


def table(results: dict[str, dict]) -> str:
    """Markdown: one row a measurement, one column a tower."""
    lines = [f"| | {' | '.join(results)} |", "|---|" + "---|" * len(results)]
    for row in next(iter(results.values())):
        cells = [" / ".join(f"{v:.1f}" for v in result[row]) for result in results.values()]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_cards(text: str, out: Path) -> None:
    for tower in TOWERS:
        path = out / tower / "MODEL.md"
        before, rest = path.read_text().split(BEGIN)
        path.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--artifacts", type=Path, default=ARTIFACTS)
    parser.add_argument("--write", action="store_true", help="update the cards' tables")
    parser.add_argument("--photographs", type=Path, metavar="FILE",
        help="pack of CIFAR-10 and Tiny ImageNet pictures, measured too")  # fmt: skip
    args = parser.parse_args()
    folders = [args.artifacts / tower for tower in TOWERS]
    results = {f.name: evaluate(f) for f in folders if (f / "open_clip_config.json").is_file()}
    text = table(results)
    print(text)
    if args.photographs:
        print("\nPhotographs, top-1 / top-5 (no part of the cards' tables):")
        for source in ("cifar-10", "tiny-imagenet"):
            for folder in folders:
                one, five = photographs(MiniClip(folder), args.photographs, source)
                print(f"{source}, {folder.name}: {one:.1f} / {five:.1f} %")
    if args.write:
        write_cards(text, args.artifacts)
        print("Cards written. Their bundles are sealed: `make bundles` after new weights, else "
              "`python -m export refresh-card --bundle FOLDER`.")  # fmt: skip


if __name__ == "__main__":
    sys.exit(reported(main))
