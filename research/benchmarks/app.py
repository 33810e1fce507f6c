"""What a visitor waits for: `python -m research benchmark app concepts|first|search|start|edit`.

concepts  concepts of an image against one `encode_image`, ViT-B/32 with random weights
first     first and second answer of every endpoint on a bundle of real size, random weights
search    a search over 9,216 neurons described with 30,000 texts
start     phases of `python app.py` until the page answers
edit      reading a picture, its edit run through the model, and what a slider's move takes
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from torch.nn.functional import normalize

from clipneurons.bundle.bundle import Bundle, save_bundle
from clipneurons.bundle.config import BundleConfig, DataSet, Pool
from clipneurons.bundle.layer_arrays import LayerArrays
from clipneurons.bundle.thumbnails import Examples
from clipneurons.lens.lens import Lens
from clipneurons.models.clip import load_clip
from clipneurons.synthetic.photographs import load_photographs
from export.pipeline.opening import with_opening
from research.benchmarks.timing import alternate, measure

ROOT = Path(__file__).parent.parent
TEXTS, COMPONENTS = 30_000, 64


def random_bundle(
    layers: tuple[int, ...], units: int, embed: int, percentile: dict[int, torch.Tensor],
    count: int = TEXTS,
) -> Bundle:  # fmt: skip
    """A bundle of random numbers of the sizes that CLIP ViT-B has."""
    generator = torch.Generator().manual_seed(0)

    def layer(index: int) -> LayerArrays:
        return LayerArrays(
            directions=normalize(torch.randn(units, embed, generator=generator), dim=1),
            means=torch.zeros(units, embed),
            percentile=percentile.get(index, torch.ones(units)),
            threshold=torch.ones(units),
            explained_variance=torch.rand(units, generator=generator),
            top_norms=torch.ones(units, 1),
            top_activating_images=torch.zeros(units, 1, dtype=torch.int32),
            norm_histogram=torch.zeros(units, 1, dtype=torch.int32),
            participation_ratio=torch.rand(units, generator=generator),
            indices=torch.randint(count, (units, COMPONENTS), generator=generator).int(),
            coefficients=torch.randn(units, COMPONENTS, generator=generator),
        )

    config = BundleConfig(
        kind="vit", model="ViT-B-32", pretrained="random", weights_sha256="0" * 64,
        activation="gelu", image_size=(224, 224), image_mean=(0.5,) * 3, image_std=(0.5,) * 3,
        embed_dim=embed, heads=12, layers=layers, units_per_neuron=1, top_k=1, percentile=98.0,
        shared_bias=False, components=COMPONENTS, centred_pool=False, norm_edges=(0.0, 1.0),
        pool=Pool("random", "", "", count, ""), data=DataSet("random", 1, 0, ""),
    )  # fmt: skip
    texts = [f"text {i}" for i in range(count)]
    vectors = normalize(torch.randn(count, embed, generator=generator), dim=1)
    examples = Examples.build({}, {})
    return Bundle(config, {i: layer(i) for i in layers}, texts, vectors, examples, {})


def concepts(args: argparse.Namespace) -> None:
    """Time the concepts of an image against the forward pass alone."""
    from clipneurons.concepts.concepts import ConceptReader
    from clipneurons.concepts.image_concepts import read_image

    clip = load_clip("ViT-B-32", "random", device="cpu")
    layers = tuple(args.layers)
    lens = Lens(clip, layers)
    bundle = random_bundle(layers, clip.neurons, clip.embed_dim, percentiles(lens))
    reader = ConceptReader(lens, bundle)
    pixels = torch.randn(3, 224, 224, generator=torch.Generator().manual_seed(1))

    def at_once() -> None:
        embedding, effects = reader(pixels[None])
        reader.activated(effects)
        reader.zero_shot(embedding)

    jobs = {
        "encode_image": lambda: clip.encode_image(pixels[None]),
        "effects and zero-shot texts": at_once,
        "concepts and maps": lambda: read_image(reader, pixels),
    }
    times = measure(jobs, args.rounds)
    activated = read_image(reader, pixels).activated
    print(f"layers {layers}, {args.rounds} rounds; {activated} activated neurons, {TEXTS} texts")
    for name in jobs:
        print(f"{name:28} {times.row(name, 'encode_image')}")


def percentiles(lens: Lens) -> dict[int, torch.Tensor]:
    """Each unit's 98th percentile of effect norms over a few random images."""
    images = torch.randn(16, 3, *lens.clip.image_size, generator=torch.Generator().manual_seed(2))
    _, effects = lens(images)
    return {layer: mine.norms().quantile(0.98, dim=0) for layer, mine in effects.items()}


def first(args: argparse.Namespace) -> None:
    """Ask every endpoint twice, of an app that was just started."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "random"
        save_random(bundle, args.model, tuple(args.layers), args.texts, args.images)
        picture = Path(folder) / "picture.png"
        Image.fromarray(load_photographs().image(0)).resize((400, 300)).save(picture)
        with app_process([str(bundle)], args.port):
            ask_twice(f"http://127.0.0.1:{args.port}", picture)


def save_random(folder: Path, model: str, layers: tuple[int, ...], texts: int, images: int) -> None:
    """A bundle of a named model with random weights, shipped photographs in its gallery.

    It ships what the page opens with, as an export does.
    """
    clip = load_clip(model, "random", device="cpu")
    lens = Lens(clip, layers)
    bundle = random_bundle(layers, clip.neurons, clip.embed_dim, percentiles(lens), texts)
    config = replace(
        bundle.config, model=model, weights_sha256=clip.sha256(), activation=clip.activation,
        image_size=clip.image_size, image_mean=clip.image_mean, image_std=clip.image_std,
        heads=clip.heads, data=DataSet("photographs", images, 0, ""),
    )  # fmt: skip
    pack = load_photographs()
    pictures = {number: pack.data(number) for number in range(min(images, len(pack)))}
    captions = {number: pack.name(number) for number in pictures}
    examples = Examples.build(pictures, captions)
    bundle = replace(bundle, config=config, examples=examples)
    save_bundle(with_opening(bundle, lens), folder)


def ask_twice(address: str, picture: Path) -> None:
    """Print the seconds of the first and the second answer of every endpoint."""
    client = Client(address, verbose=False)
    file = handle_file(picture)
    layer = client.predict("", api_name="/about")["config"]["layers"][0]
    asked = {
        "/neuron": {"layer": layer, "unit": 0},
        "/search": {"query": "boat, -water"},
        "/concepts": {"image": file},
        "/compare": {"files": [file, file]},
        "/edit": {},
        "/find_edit": {},
        "/segment": {"image": file, "words": "cat, dog"},
        "/find_cues": {
            "true_class": "cat", "target_class": "dog", "method": "second-order", "count": 50,
        },
        "/attack": {"true_class": "cat", "target_class": "dog", "images": 1},
        "/compare_sets": {"reference": [file] * 4, "new": [file] * 4},
        "/compare_example": {},
    }  # fmt: skip
    for endpoint, arguments in asked.items():
        seconds, refused = [], ""
        for _ in range(2):
            begun = time.perf_counter()
            try:
                client.predict(bundle="", **arguments, api_name=endpoint)
            except AppError as error:  # what random weights have none of: told as late
                refused = str(error).splitlines()[0]
            seconds.append(f"{time.perf_counter() - begun:8.2f}")
        print(f"{endpoint:<18}{' '.join(seconds)}  {refused}".rstrip(), flush=True)


def search(args: argparse.Namespace) -> None:
    """Time the three kinds of look-up."""
    from clipneurons.dictionary.dictionary import Dictionary, parse_query

    dictionary = Dictionary(random_bundle((8, 9, 10), 3072, 512, {}))
    phrases = parse_query("text 17, -text 12345")
    jobs = {
        "by direction": lambda: dictionary.strongest(dictionary.cosines(dictionary.embed(phrases))),
        "by phrases": lambda: dictionary.strongest(dictionary.coefficient_scores(phrases)),
        "neighbours": lambda: dictionary.bundle.unit(9, 100),
    }
    for name, seconds in alternate(jobs, args.rounds).items():
        worst = sorted(seconds)[int(0.95 * len(seconds))]
        print(
            f"{name}: {1e3 * median(seconds):.1f} ms median, {1e3 * worst:.1f} ms 95th percentile"
        )


def start(args: argparse.Namespace) -> None:
    """Start the app as a visitor would, until the page answers."""
    begun = time.perf_counter()
    with app_process(args.bundle, args.port, begun):
        pass


@contextmanager
def app_process(bundles: Sequence[str], port: int, begun: float | None = None) -> Iterator[None]:
    """`python app.py` until its model is loaded, with its phases printed."""
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(port)]
    for folder in bundles:
        command += ["--bundle", folder]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    )
    try:
        for line in process.stdout:
            print(line, end="", flush=True)
            if begun is not None and line.rstrip().endswith("  page"):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
                    answer.read()
                print(f"{time.perf_counter() - begun:6.2f} s  first page answered")
            if line.rstrip().endswith("  model"):
                break
        yield
    finally:
        process.terminate()
        process.wait()


# In the page: moves one slider up and down, and times the handler and the next frame.
_MOVES = """async (count) => {
  const slider = document.querySelector('.cn-edit input[type=range]'), times = [];
  for (let i = 0; i < count; i++) {
    const begun = performance.now();
    slider.value = 2 * (i % 2);
    slider.dispatchEvent(new Event('input', { bubbles: true }));
    const handled = performance.now();
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    times.push([handled - begun, performance.now() - begun]);
  }
  return times;
}"""


def edit(args: argparse.Namespace) -> None:
    """Time the edit tab on a bundle: on the server, and in Chromium where it is installed."""
    from clipneurons.edit.edit import Edit
    from tabs.edit.handlers import opened_with
    from tabs.edit.sources import example
    from tabs.server.session import BundleSession

    session = BundleSession.open((args.bundle or [str(ROOT / "artifacts" / "mini-vit")])[0])
    picture, names, wanted = example(session)
    reading = opened_with(session, [session.image(picture)], names, wanted).reading
    units = [(part.rules[0].layer, part.rules[0].unit) for part in reading.parts[:2]]
    ablation, reader = Edit.ablating(session.bundle, units), session.edit_reader
    jobs = {
        "encode_image": lambda: session.clip.encode_image(reading.pixels),
        "reading": lambda: reader.read(reading.pixels, names, wanted),
        "measured": lambda: reader.measure(reading, ablation),
    }
    for job in jobs.values():
        job()
    for name, seconds in alternate(jobs, args.rounds).items():
        print(f"{name}: {1e3 * median(seconds):.1f} ms median, {1e3 * max(seconds):.1f} ms most")
    _in_browser(session.folder, args.port, args.rounds)


def _in_browser(folder: Path, port: int, rounds: int) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        print("no chromium: the slider was not timed")
        return
    from playwright.sync_api import sync_playwright

    command = [sys.executable, str(ROOT / "app.py"), "--port", str(port), "--bundle", str(folder)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    )
    try:
        next(line for line in process.stdout if line.rstrip().endswith("  model"))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page()
            page.goto(f"http://127.0.0.1:{port}/?tab=edit")
            page.wait_for_selector("#edit-result .cn-edit")
            handled, drawn = zip(*page.evaluate(_MOVES, rounds), strict=True)
            browser.close()
    finally:
        process.terminate()
        process.wait()
    print(f"slider: {median(handled):.1f} ms median, {max(handled):.1f} ms most; with two frames "
          f"of the browser {median(drawn):.1f} ms, {max(drawn):.1f} ms")  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m research benchmark app", description=__doc__.splitlines()[0]
    )
    commands = parser.add_subparsers(required=True)
    for function in (concepts, first, search, start, edit):
        command = commands.add_parser(function.__name__, help=function.__doc__)
        command.set_defaults(run=function)
        command.add_argument("--rounds", type=int, default=15)
        if function is concepts:
            command.add_argument("--layers", type=int, nargs="+", default=[9])
        if function is first:
            command.add_argument("--model", default="ViT-B-32")
            command.add_argument("--layers", type=int, nargs="+", default=[8, 9, 10])
            command.add_argument("--texts", type=int, default=TEXTS)
            command.add_argument("--images", type=int, default=1000, help="in the gallery")
        if function in (first, start, edit):
            command.add_argument("--port", type=int, default=7871)
        if function in (start, edit):
            command.add_argument("--bundle", action="append", default=[])
    args = parser.parse_args(arguments)
    args.run(args)
