"""The evaluation: every kind of data set read back as it was written, and figures by hand."""

import json

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from clipneurons.bundle.bundle import load_bundle
from clipneurons.models.preprocess import whole
from clipneurons.segmentation.edges import follow_edges
from clipneurons.segmentation.masks import min_max, rle, upsample
from clipneurons.segmentation.sliding_window import map_in_windows
from clipneurons.synthetic.collages import Collages
from clipneurons.text.embedding import embed_texts
from export.data.packed_sources import shipped_photographs
from research.__main__ import main
from research.segmentation import objects as evaluation
from research.segmentation.mask_datasets import (
    MaskSet,
    Sample,
    SegmentationDataError,
    open_mask_set,
)
from research.segmentation.methods import (
    BLOCKS,
    OURS,
    PAIRS,
    VOTES,
    WITH,
    WITHOUT,
    Method,
    Variant,
    methods,
)
from research.segmentation.metrics import score_mask, summarise
from research.segmentation.objects import Trial
from tests.helpers.models import tiny_vit
from tests.helpers.tiny import tiny_bundle_folder


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def truth(seed=0, size=(6, 8)):
    return np.random.default_rng(seed).random(size) > 0.5


def write_pairs(folder, sizes=((6, 8), (5, 5))):
    for index, (name, size) in enumerate(zip(("sea_lion", "zebra"), sizes, strict=True)):
        (folder / name).mkdir(parents=True)
        Image.fromarray(noise(*size, 3)).save(folder / name / "one.jpg")
        mask = Image.fromarray((truth(index, size) * 200).astype(np.uint8))
        mask.save(folder / name / "one.png")
    (folder / "zebra" / "no mask.jpg").write_bytes(b"")
    return folder


def test_pairs(tmp_path):
    data = open_mask_set(str(write_pairs(tmp_path / "data")))
    assert (data.count, data.class_names) == (2, ("sea lion", "zebra"))
    first, second = data
    assert first.image.size == (8, 6)
    assert list(first.masks) == ["sea lion"]
    assert (second.masks["zebra"] == truth(1, (5, 5))).all()
    assert open_mask_set(str(tmp_path / "data"), count=1).count == 1
    Image.new("L", (3, 3)).save(tmp_path / "data" / "zebra" / "one.png")
    with pytest.raises(SegmentationDataError, match="3 x 3 pixels"):
        list(open_mask_set(str(tmp_path / "data")))


def test_cut_photographs_to_choose_by_are_others_than_those_reported_on():
    chosen_on, reported = (
        open_mask_set("photographs", count=6, styles=styles) for styles in ("validation", "heldout")
    )
    for data, heldout in ((chosen_on, False), (reported, True)):
        pack = shipped_photographs(heldout).pack
        assert data.class_names == tuple(sorted({pack.name(row) for row in range(len(pack))}))
        for sample, made in zip(data, Collages(pack, 6, 0, 128), strict=True):
            assert (np.asarray(sample.image) == made.image).all()
            assert sample.masks.keys() == made.masks.keys()
            assert sum(mask.sum() for mask in sample.masks.values()) == 128 * 128


def test_what_is_no_data_set(tmp_path):
    for name, content, words in [
        ("absent", None, "neither 'scenes', "), ("a.mat", b"MATLAB 5", "MATLAB 7.3"),
        ("a.json", b"{}", "COCO"), ("b.json", b"[", "COCO"), ("folder", "", "no pairs"),
    ]:  # fmt: skip
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content == "":
            path.mkdir()
        with pytest.raises(SegmentationDataError, match=words):
            open_mask_set(str(path))


def test_imagenet_segmentation(tmp_path):
    """The layout of gtsegs_ijcv.mat: object references, columns first."""
    with h5py.File(tmp_path / "g.mat", "w") as file:
        pictures = file.create_dataset("value/img", (2, 1), dtype=h5py.ref_dtype)
        truths = file.create_dataset("value/gt", (2, 1), dtype=h5py.ref_dtype)
        for index, size in enumerate([(6, 8), (5, 4)]):
            image = noise(*size, 3, seed=index)
            picture = file.create_dataset(f"#refs#/i{index}", data=image.transpose(2, 1, 0))
            mask = truth(index, size).astype(np.uint8)
            annotator = file.create_dataset(f"#refs#/m{index}", data=mask.T)
            inner = file.create_dataset(f"#refs#/g{index}", (1, 1), dtype=h5py.ref_dtype)
            inner[0, 0] = annotator.ref
            pictures[index, 0], truths[index, 0] = picture.ref, inner.ref
    data = open_mask_set(str(tmp_path / "g.mat"))
    assert (data.count, len(data.class_names)) == (2, 1000)
    for index, sample in enumerate(data):
        size = [(6, 8), (5, 4)][index]
        assert (np.asarray(sample.image) == noise(*size, 3, seed=index)).all()
        assert (sample.masks[None] == truth(index, size)).all()


def coco(tmp_path, annotations):
    Image.fromarray(noise(6, 8, 3)).save(tmp_path / "one.png")
    categories = [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}]
    images = [{"id": 3, "file_name": "one.png", "height": 6, "width": 8}]
    text = json.dumps({"categories": categories, "images": images, "annotations": annotations})
    (tmp_path / "a.json").write_text(text)
    return str(tmp_path / "a.json")


def test_coco_instances(tmp_path):
    mask = truth(3)
    annotations = [
        {"image_id": 3, "category_id": 9, "segmentation": rle(torch.from_numpy(mask))},
        {"image_id": 3, "category_id": 7, "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]},
    ]
    (sample,) = open_mask_set(coco(tmp_path, annotations))
    assert (sample.masks["dog"] == mask).all()
    box = np.zeros((6, 8), bool)
    box[1:4, 1:5] = True
    assert (sample.masks["cat"] == box).all()
    annotations[0]["segmentation"] = {"size": [6, 8], "counts": "abc"}
    with pytest.raises(SegmentationDataError, match="compressed"):
        list(open_mask_set(coco(tmp_path, annotations)))


def test_coco_panoptic(tmp_path):
    ids = np.zeros((6, 8), dtype=np.int64)
    ids[:2], ids[2:4, 3:] = 300, 70000
    channels = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
    Image.fromarray(channels).save(tmp_path / "segments.png")
    segments = [{"id": 300, "category_id": 9}, {"id": 70000, "category_id": 7}]
    path = coco(tmp_path, [{"image_id": 3, "file_name": "segments.png", "segments_info": segments}])
    (sample,) = open_mask_set(path, masks=str(tmp_path))
    assert (sample.masks["dog"] == (ids == 300)).all()
    assert (sample.masks["cat"] == (ids == 70000)).all()
    assert (sample.valid == (ids > 0)).all()
    with pytest.raises(SegmentationDataError, match="--masks"):
        open_mask_set(path)


@pytest.fixture(scope="module")
def clip():
    return tiny_vit()


def masks_of_one(count=4):
    """Images whose one half is the class."""
    half = np.zeros((16, 16), bool)
    half[:, 8:] = True

    def load(index):
        return Sample(Image.fromarray(noise(16, 16, 3, seed=index)), {"cat": half, "dog": ~half})

    return MaskSet("halves", count, ("cat", "dog"), load)


def step(clip, sign):
    ramp = torch.linspace(-1, 1, 4).expand(4, 4)
    return lambda images, texts: sign * ramp.expand(len(images), len(texts), 4, 4)


def test_figures_by_hand(clip):
    data = masks_of_one()
    trials = [
        Trial(Variant(Method(name, step(clip, sign))), threshold=None)
        for name, sign in (("right", 1), ("left", -1))
    ]
    right, left = evaluation.evaluate(clip, data, trials, "none")
    heat = np.asarray(
        torch.nn.functional.interpolate(
            torch.linspace(0, 1, 4).expand(1, 1, 4, 4), (16, 16), mode="bilinear"
        )[0, 0]
    )
    sample = data.load(0)
    scores = [score_mask(heat, sample.masks[name])[0] for name in ("cat", "dog")]
    expected = summarise(np.array([np.sum([s.row() for s in scores], 0)] * 4))
    np.testing.assert_allclose(summarise(right.rows), expected, rtol=5e-3)
    np.testing.assert_allclose(expected[:2], [50, 100 / 3], rtol=1e-6)
    np.testing.assert_allclose(summarise(left.rows), expected, rtol=5e-3)
    assert right.rows.shape == (4, 8)


@pytest.mark.parametrize("edges", [False, True])
@pytest.mark.parametrize("windows", [None, 1.5])
def test_maps_are_those_of_the_image_or_of_its_windows_in_either_block(clip, windows, edges):
    data = masks_of_one(1)
    method = methods(clip)["MaskCLIP"]
    trial = Trial(Variant(method), edges, None, windows)
    (result,) = evaluation.evaluate(clip, data, [trial], "none")
    texts, sample = embed_texts(clip, ["cat", "dog"], "none"), data.load(0)

    def make(batch):
        maps = method.maps(batch, texts)
        return follow_edges(clip, batch, maps) if edges else maps

    image = whole(clip, sample.image)
    maps = make(image)[0] if windows is None else map_in_windows(make, clip, sample.image, windows)
    heat = min_max(upsample(maps, (16, 16))).numpy()
    scores = [
        score_mask(mine, sample.masks[name])[0]
        for mine, name in zip(heat, ("cat", "dog"), strict=True)
    ]
    np.testing.assert_allclose(result.rows[0], np.sum([s.row() for s in scores], 0), rtol=5e-3)


def test_every_method_has_the_same_number_of_tries(clip):
    for method in methods(clip, {1: torch.randn(clip.neurons, clip.embed_dim)}).values():
        assert len(list(method.variants())) * method.tries(4) == 48, method.name
        limits = evaluation.thresholds(method.tries(4))
        assert len(set(limits)) == len(limits) == method.tries(4)


def test_the_better_variant_is_chosen(clip):
    def by_text(images, texts):
        """Right when the text was held against the others (its entries sum to less)."""
        good = texts.norm(dim=1) < 0.99
        ramp = torch.linspace(-1, 1, 4).expand(len(images), len(texts), 4, 4)
        return torch.where(good[:, None, None], ramp, -ramp)

    data = masks_of_one()
    only_cat = MaskSet(
        "cat", 4, data.class_names,
        lambda i: Sample(data.load(i).image, {"cat": data.load(i).masks["cat"]}),
    )  # fmt: skip
    plain, edges = evaluation.choose(clip, only_cat, [Method("m", by_text)], "none")
    assert (plain.edges, edges.edges) == (False, True)
    assert plain.variant.contrast


def test_what_a_method_has_to_choose_is_chosen_and_reported(clip):
    def signed(images, texts, sign):
        """Right in the map of the first text, "cat", where the sign is 1."""
        maps = step(clip, sign)(images, texts)
        return torch.cat([maps[:, :1], -maps[:, 1:]], dim=1)

    offered = Method("m", signed, {"sign": (-1, 1)})
    figures = evaluation.compare(clip, masks_of_one(), masks_of_one(), [offered], "none")
    assert figures["validation images"] == 4
    assert figures["blocks"][WITHOUT]["m"]["sign"] == 1
    assert figures["blocks"][WITHOUT]["m"]["values"][0] > 90


def test_report_and_table(clip):
    known = [Method(OURS, step(clip, 1)), Method(VOTES, step(clip, 1))]
    figures = evaluation.compare(clip, None, masks_of_one(), known, "none")
    json.dumps(figures)
    for block in BLOCKS:
        assert figures["blocks"][block][VOTES]["behind"][OURS]["low"] == [0, 0, 0]
    text = evaluation.in_words(figures)
    assert text.count("\n| ") == 2 * 4
    assert text.count("(2406.04341)") == 2
    assert "threshold 0.3" in text


@pytest.mark.parametrize(("kind", "baseline"), [("vit", "LRP"), ("resnet", PAIRS)])
def test_the_command(tmp_path, capsys, kind, baseline):
    bundle = tiny_bundle_folder(tmp_path / "bundle", kind=kind)
    write_pairs(tmp_path / "data")
    words = ["segmentation", "objects", "--bundle", str(bundle), "--device", "cpu"]
    words += ["--dataset", str(tmp_path / "data"), "--choose", "0", "--templates", "none"]
    assert main([*words, "--report", str(tmp_path / "r.json")]) == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["blocks"][WITH].keys() == report["blocks"][WITHOUT].keys() > {OURS, baseline}
    said = capsys.readouterr().out
    assert "2 images" in said
    assert "{" not in said, "the table, not all that the file holds"
    assert main([*words, "--methods", f"{OURS},{baseline}"]) == 0
    figures = load_bundle(bundle).metrics["segmentation"]
    assert list(figures["blocks"][WITH]) == [OURS, baseline]
    assert main([*words, "--methods", f"{baseline},magic"]) == 2
    assert "no method 'magic'" in capsys.readouterr().err
