"""What the small CLIPs can do, from files of the repository; photographs that do not ship are
measured where their packs are given.

Everything is seeded, so the same weights give the same table; it stands in the model cards
MODEL.md between their markers, and a test holds them to it.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from clipneurons.bundle.config import MODEL_CARD
from clipneurons.models.clip import ClipModel, load_clip
from clipneurons.shipped import TOWERS
from clipneurons.synthetic.captions import PROMPTS, Facts, article, write_caption
from clipneurons.synthetic.photographs import FILE, Photographs, load_photographs
from clipneurons.synthetic.pictograms import Pictograms, load_pictograms
from clipneurons.synthetic.scenes import Placed, SceneConfig, Scenes, compose, relation
from clipneurons.text.embedding import embed_texts
from export.common.errors import UserError
from research.mini_clip.class_names import plain
from research.mini_clip.late_effects import later_layers, lost_accuracy
from research.mini_clip.marked import renewed
from research.mini_clip.photographs import kept_out, open_packs
from research.mini_clip.recipe import VALIDATION_STYLE

TEN = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCH = 128  # images that are embedded together
ABLATED = 1000  # photographs on which effects are ablated
BEGIN, END = "<!-- evaluation -->", "<!-- /evaluation -->"


def pixels(clip: ClipModel, images: Sequence[np.ndarray]) -> torch.Tensor:
    """uint8 [H, W, 3] each, drawn out to the model's size -> preprocessed [n, 3, side, side]."""
    resized = [Image.fromarray(i).resize(clip.image_size, Image.BICUBIC) for i in images]
    return torch.stack([clip.preprocess(image) for image in resized])


def embed_images(clip: ClipModel, images: Sequence[np.ndarray]) -> torch.Tensor:
    """uint8 [H, W, 3] each -> unit rows [n, d]."""
    parts = [images[i : i + BATCH] for i in range(0, len(images), BATCH)]
    return torch.cat([F.normalize(clip.encode_image(pixels(clip, p)), dim=1) for p in parts])


def embed_classes(clip: ClipModel, names: Sequence[str]) -> torch.Tensor:
    """Zero-shot classifier rows [classes, d]."""
    return embed_texts(clip, [article(name) for name in names], PROMPTS)


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


def retrieval(clip: ClipModel, pack: Pictograms, count: int = 256) -> tuple[float, float]:
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
    images = embed_images(clip, [scenes[i].image for i in range(count)])
    similarity = images @ embed_texts(clip, captions).T
    own = torch.arange(count)
    return tuple(100 * (similarity.argmax(d) == own).float().mean().item() for d in (1, 0))


def evaluate(folder: Path, packs: list[Photographs]) -> dict[str, tuple[float, ...]]:
    """The table's rows: name -> percentages."""
    clip = load_clip(folder, device="cpu")
    pack, heldout = load_pictograms(), load_pictograms(heldout=True)
    concepts, rows = pack.concepts, {}
    every, ten = embed_classes(clip, concepts), embed_classes(clip, TEN)
    # fxemoji is in the pack but chose the recipe, unseen in training: a row of its own.
    styles = tuple(style for style in pack.styles if style != VALIDATION_STYLE)
    for name, objects in (("one object", (1, 1)),):
        scenes = Scenes(pack, SceneConfig(objects=objects, styles=styles), 1000, seed=7000)
        images = embed_images(clip, [scenes[i].image for i in range(1000)])
        labels = [concepts.index(scenes[i].objects[0].name) for i in range(1000)]
        rows[f"new scenes of trained styles, {name}: top-1 / top-5"] = top(images, every, labels)
    for style, source, role in (
        (VALIDATION_STYLE, pack, "validation style"),
        ("openmoji", heldout, "held out"),
        ("emojione-v1", heldout, "held out, shift"),
    ):
        images, labels = clean(source, style, concepts)
        row = f"{style} ({role}), {len(concepts)} concepts"
        rows[f"{row}: top-1 / top-5"] = top(embed_images(clip, images), every, labels)
        if style == "openmoji":
            rows |= late_effects(clip, row, images, every, labels)
        images, labels = clean(source, style, TEN)
        embedded = embed_images(clip, images)
        rows[f"{style} ({role}), ten classes: top-1"] = top(embedded, ten, labels)[:1]
    rows["retrieval, 256 two-object scenes: R@1 image to text / text to image"] = retrieval(
        clip, pack
    )
    for photographs_pack in packs:
        rows |= photographs(clip, photographs_pack)
    return rows


def photographs(clip: ClipModel, pack: Photographs) -> dict[str, tuple[float, float]]:
    """Top-1 and top-5 in percent on the photographs of each data set that no training saw, among
    the names of that data set; and of all data sets of the pack together, among all their names."""
    kept, found = np.flatnonzero(kept_out(pack)), {}
    names = [plain(entry["name"]) for entry in pack.classes]
    images = [pack.image(row) for row in kept.tolist()]
    embedded = embed_images(clip, images)

    def measured(chosen: np.ndarray, sources: Sequence[str]):
        own = np.isin(pack.sources, sources)
        classes = sorted({names[c] for c in np.unique(pack.label[own])})
        labels = [classes.index(names[pack.label[row]]) for row in kept[chosen]]
        rivals = embed_classes(clip, classes)
        row = f"photographs no training saw, {len(classes)} names"
        found[f"{' + '.join(sources)}, {row}: top-1 / top-5"] = top(
            embedded[torch.from_numpy(chosen)], rivals, labels
        )
        return rivals, labels, row

    sources = tuple(str(source) for source in dict.fromkeys(pack.sources[kept]))
    for source in sources:
        chosen = pack.sources[kept] == source
        rivals, labels, about = measured(chosen, (source,))
        mine = [images[place] for place in np.flatnonzero(chosen)]
        found |= late_effects(clip, f"{source}, {about}", mine, rivals, labels)
    if len(sources) > 1:
        measured(np.ones(len(kept), bool), sources)
    return found


def late_effects(clip: ClipModel, row: str, images, classes, labels) -> dict[str, tuple]:
    """A row of `lost_accuracy` on at most `ABLATED` of the images, for a ViT."""
    if clip.kind != "vit":
        return {}
    chosen = np.sort(np.random.default_rng(0).permutation(len(images))[:ABLATED])
    own = torch.tensor(labels)[chosen]
    lost = lost_accuracy(clip, pixels(clip, [images[i] for i in chosen]), classes, own)
    layers = later_layers(clip)
    name = f"{row}: share of top-1 lost without the second-order effects of layers {layers[0]} to "
    return {f"{name}{layers[-1]}, together / the worst alone": lost}


def table(results: dict[str, dict]) -> str:
    """Markdown: one row a measurement, one column a tower."""
    lines = [f"| | {' | '.join(results)} |", "|---|" + "---|" * len(results)]
    for row in {row: None for result in results.values() for row in result}:
        found = [result.get(row, ()) for result in results.values()]
        cells = [" / ".join(f"{v:.1f}" for v in values) or "–" for values in found]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def without(pack: Photographs, others: Sequence[Photographs]) -> Photographs:
    """A pack without the data sets of other ones, which are measured there."""
    seen = {source for other in others for source in other.sources}
    return pack.subset(np.flatnonzero(~np.isin(pack.sources, list(seen))))


def write_cards(text: str, out: Path) -> None:
    for tower in TOWERS:
        path = out / tower / MODEL_CARD
        path.write_text(renewed(path.read_text(), BEGIN, END, text))


def run(artifacts: Path, packs: list[Path], write: bool) -> None:
    """Print the table of the towers in a folder; with `write`, put it into their cards."""
    shipped = [load_photographs()] if FILE.is_file() else []
    others = [without(pack, shipped) for pack in open_packs(packs)]
    opened = [pack for pack in (*shipped, *others) if len(pack)]
    folders = [artifacts / tower for tower in TOWERS]
    folders = [folder for folder in folders if (folder / "open_clip_config.json").is_file()]
    if not folders:
        raise UserError(f"{artifacts} holds neither {' nor '.join(TOWERS)}")
    text = table({folder.name: evaluate(folder, opened) for folder in folders})
    print(text)
    if write:
        write_cards(text, artifacts)
        print("Cards written. Their bundles are sealed: `make bundles` after new weights, else "
              "`python -m export refresh-card --bundle FOLDER`.")  # fmt: skip
