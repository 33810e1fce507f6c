"""How the shift is told of photographs that are not square: `python -m research benchmark shift`.

A pictogram is stuck on the lower right corner of some of the new photographs, all of which are
wide or tall: the shipped ones are square, so each is joined by a part of another. Four ways to
show a picture to the model: its middle square, the whole stretched to a square, the whole on a
square of its mean colour (letterbox), and the mean over the squares that cover it (windows). One is
chosen on photographs and pictograms of the validation half; the others report. Without a mark,
detections are false alarms.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageStat

from clipneurons.bundle.bundle import load_bundle
from clipneurons.lens.lens import Lens
from clipneurons.models.clip import load_clip
from clipneurons.shift.comparison import EmbeddedTextPool, compare
from clipneurons.shift.profile import Profile, Profiler
from clipneurons.synthetic.photographs import load_photographs
from clipneurons.synthetic.pictograms import load_pictograms

SIZE, MARK = 0.36, 0.02  # side and margin of the mark, in shares of the short side
ASPECTS = (1.5, 2.0)  # long side over short side


def stretched(image: Image.Image) -> Image.Image:
    """The whole image as a square."""
    side = min(image.size)
    return image.resize((side, side), Image.Resampling.BICUBIC)


def letterbox(image: Image.Image) -> Image.Image:
    """The whole image in the middle of a square of its mean colour."""
    side = max(image.size)
    colour = tuple(round(value) for value in ImageStat.Stat(image).mean)
    canvas = Image.new("RGB", (side, side), colour)
    canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return canvas


def middle(image: Image.Image) -> Image.Image:
    """What a model's own preprocessing keeps."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


WAYS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "middle square": middle,
    "stretched": stretched,
    "letterbox": letterbox,
    "windows": lambda image: image,
}


def marked(image: Image.Image, mark: Image.Image) -> Image.Image:
    """The photograph with a pictogram in its lower right corner."""
    short = min(image.size)
    side, margin = round(SIZE * short), round(MARK * short)
    drawn = mark.resize((side, side), Image.Resampling.LANCZOS)
    image = image.copy()
    image.paste(drawn, (image.width - side - margin, image.height - side - margin), drawn)
    return image


def photographs() -> list[Image.Image]:
    """Wide and tall photographs in turn, each of two shipped ones beside or below each other."""
    pack = load_photographs()
    order = np.random.default_rng(0).permutation(len(pack))
    return [
        joined(pack.image(one), pack.image(other), ASPECTS[number // 2 % 2], number % 2 == 0)
        for number, (one, other) in enumerate(zip(order[::2], order[1::2], strict=False))
    ]


def joined(one: np.ndarray, other: np.ndarray, aspect: float, wide: bool) -> Image.Image:
    """A square photograph and as much of another as makes the aspect."""
    more = round((aspect - 1) * len(one))
    parts = [one, other[:, :more]] if wide else [one, other[:more]]
    return Image.fromarray(np.concatenate(parts, axis=1 if wide else 0))


def rates(
    profiler: Profiler, pool: EmbeddedTextPool, images: Sequence[Image.Image],
    marks: Sequence[Image.Image], share: float, args: argparse.Namespace,
) -> dict[str, float]:  # fmt: skip
    """Share of runs in which the sets are said to differ, by way."""
    plain = {
        way: profiler.of_images([show(image) for image in images]) for way, show in WAYS.items()
    }
    found = dict.fromkeys(WAYS, 0)
    for run in range(args.runs):
        rng = np.random.default_rng(run)
        order = rng.permutation(len(images))[: 2 * args.images]
        old, new = order[: args.images], order[args.images :]
        some = new[: round(share * args.images)]
        mark = marks[run % len(marks)]
        for way, show in WAYS.items():
            parts = [plain[way][new[len(some) :]]]
            if len(some):
                shown = [show(marked(images[i], mark)) for i in some]
                parts.append(profiler.of_images(shown))
            shift = compare(plain[way][old], Profile.cat(parts), pool, args.permutations, run)
            found[way] += shift.p <= 0.05
    return {way: count / args.runs for way, count in found.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m research benchmark shift", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--bundle", default="artifacts/mini-vit")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--images", type=int, default=150, help="a side")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.4])
    parser.add_argument("--permutations", type=int, default=100)
    halves = ("validation", "report")
    parser.add_argument("--halves", nargs="+", choices=halves, default=halves)
    args = parser.parse_args(arguments)
    bundle, clip = load_bundle(args.bundle), load_clip(args.bundle)
    profiler = Profiler(Lens.of_bundle(clip, bundle), bundle)
    pool, images, pack = EmbeddedTextPool.of(bundle), photographs(), load_pictograms()
    print(f"{len(images)} photographs, {args.images} a side, {args.runs} runs a cell")
    chosen = np.random.default_rng(0).permutation(len(pack.concepts))[: 2 * args.runs]
    words = [pack.concepts[i] for i in chosen]
    marks = [Image.fromarray(np.array(pack.lookup(w, pack.styles_of(w)[0]))) for w in words]
    for name in args.halves:
        half = halves.index(name)
        for share in args.shares:
            found = rates(profiler, pool, images[half::2], marks[half::2], share, args)
            line = ", ".join(f"{way} {rate:.0%}" for way, rate in found.items())
            print(f"{name}, {share:.0%} marked: {line}", flush=True)
