"""Pictures of a unit's middle and weak range are those that a loop over the gallery finds."""

from dataclasses import replace

import pytest
import torch

from clipneurons.bundle.bundle import BundleError, load_bundle, save_bundle
from clipneurons.bundle.weaker_images import FEW, MIDDLE, PAD, sampled
from clipneurons.concepts.concepts import ConceptReader
from clipneurons.lens.lens import Lens
from clipneurons.models.clip import load_clip
from export.pipeline.gallery import DecodedGallery
from export.pipeline.weaker_images import least, shares_below, with_weaker_images
from tests.helpers.tiny import tiny_bundle_folder


def share_below(norm, counts, edges):
    """Of all images, those in smaller bins, and half of those in the same."""
    mine = sum(edge < norm for edge in edges[1:-1])
    return (sum(counts[:mine]) + counts[mine] / 2) / sum(counts)


def chosen(norms, counts, edges):
    """Places of the middle and of the weak images of one unit."""
    shares = {place: share_below(norm, counts, edges) for place, norm in enumerate(norms)}
    low, high = MIDDLE
    middle = sorted((abs(s - 0.5), place) for place, s in shares.items() if low <= s <= high)
    weak = sorted((norms[place], place) for place, s in shares.items() if s < low)
    found = []
    for ranked in (middle, weak):
        places = sorted((place for _, place in ranked[:FEW]), key=lambda place: -norms[place])
        found.append(places + [PAD] * (FEW - len(places)))
    return found


@pytest.mark.parametrize("images", [2, 40])
def test_ranges_are_a_loop_over_units(images):
    generator = torch.Generator().manual_seed(images)
    norms = 5 * torch.rand(images, 7, generator=generator)
    edges = torch.linspace(0, 5, 41)
    histogram = torch.randint(0, 30, (7, 40), generator=generator).int()
    below = shares_below(norms, histogram, edges)
    low, high = MIDDLE
    inside = (below >= low) & (below <= high)
    middle = least(torch.where(inside, (below - 0.5).abs(), torch.inf), norms)
    weak = least(torch.where(below < low, norms, torch.inf), norms)
    for unit in range(7):
        mine, counts = norms[:, unit].double().tolist(), histogram[unit].tolist()
        wanted = [share_below(norm, counts, edges.tolist()) for norm in mine]
        assert below[:, unit].tolist() == pytest.approx(wanted)
        found = chosen(mine, counts, edges.tolist())
        assert weak[unit].tolist() == found[1]
        # Images of one bin are as near to the middle: which of them is taken is open.
        distances = [abs(wanted[place] - 0.5) for place in found[0] if place != PAD]
        taken = [abs(wanted[p] - 0.5) for p in middle[unit].tolist() if p != PAD]
        assert sorted(taken) == pytest.approx(sorted(distances))
        sizes = [mine[p] for p in middle[unit].tolist() if p != PAD]
        assert sizes == sorted(sizes, reverse=True)


@pytest.fixture(scope="module", params=["vit", "resnet"])
def made(request, tmp_path_factory):
    """A bundle with its weaker images, and the norms by layer.

    The data set is the gallery.
    """
    folder = tiny_bundle_folder(tmp_path_factory.mktemp("weaker") / "tiny", kind=request.param)
    bundle = load_bundle(folder)
    lens = Lens(load_clip(folder, device="cpu"), bundle.config.layers)
    reader, gallery = ConceptReader(lens, bundle), DecodedGallery(bundle.examples)
    norms = {layer: [] for layer in bundle.layers}
    for image in sampled(bundle.examples):
        pixels = lens.clip.preprocess(gallery[image])[None]
        for layer, effects in reader(pixels)[1].items():
            norms[layer].append(effects.norms[0])
    norms = {layer: torch.stack(rows) for layer, rows in norms.items()}
    edges = torch.linspace(0, 1.01 * max(float(rows.max()) for rows in norms.values()), 201)
    layers = {
        layer: replace(arrays, norm_histogram=torch.stack(
            [row.histc(200, 0, float(edges[-1])).int() for row in norms[layer].T]
        ))
        for layer, arrays in bundle.layers.items()
    }  # fmt: skip
    bundle = replace(
        bundle, layers=layers, config=replace(bundle.config, norm_edges=tuple(edges.tolist()))
    )
    return with_weaker_images(bundle, reader, gallery), norms


def test_images_are_chosen_by_the_models_own_effects(made):
    bundle, norms = made
    for layer, arrays in bundle.layers.items():
        rows, counts = norms[layer], arrays.norm_histogram.tolist()
        for unit in range(len(arrays.directions)):
            _, weak = chosen(rows[:, unit].tolist(), counts[unit], list(bundle.config.norm_edges))
            assert arrays.weak_images[unit].tolist() == weak
        assert (arrays.weak_images >= 0).any()
        assert (arrays.middle_images >= 0).any()


def test_they_come_back_from_disk_in_a_byte_each(made, tmp_path):
    bundle, _ = made
    before = {
        layer: replace(arrays, middle_images=None, weak_images=None)
        for layer, arrays in bundle.layers.items()
    }
    folders = save_bundle(bundle, tmp_path / "now"), tmp_path / "before"
    save_bundle(replace(bundle, layers=before), folders[1])
    now, old = (load_bundle(folder) for folder in folders)
    for layer, arrays in bundle.layers.items():
        assert old.layers[layer].middle_images is None
        for name in ("middle_images", "weak_images"):
            assert torch.equal(getattr(now.layers[layer], name), getattr(arrays, name))
    units = sum(len(arrays.directions) for arrays in bundle.layers.values())
    more, less = ((folder / "neurons.safetensors").stat().st_size for folder in folders)
    assert 2 * FEW * units <= more - less <= 2 * FEW * units + 300 * len(bundle.layers)


def test_pictures_that_are_not_there_are_refused(made, tmp_path):
    bundle, _ = made
    layer, arrays = next(iter(bundle.layers.items()))
    middle, weak = arrays.middle_images, arrays.weak_images
    for one, other in ((middle, weak + 64), (middle[:, :2], weak[:, :2])):
        wrong = bundle.layers | {layer: replace(arrays, middle_images=one, weak_images=other)}
        with pytest.raises(BundleError, match="weaker images are"):
            save_bundle(replace(bundle, layers=wrong), tmp_path / "wrong")
