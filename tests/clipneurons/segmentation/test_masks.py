"""Maps to masks: stretching, thresholds, labels, run lengths, and the guided filter."""

import json

import numpy as np
import pytest
import torch

from clipneurons.segmentation.edges import guided_upsample
from clipneurons.segmentation.masks import (
    binary_masks,
    coco_annotations,
    from_rle,
    label_map,
    min_max,
    rle,
    upsample,
)


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_min_max_and_thresholds():
    maps = torch.cat([noise(2, 3, 4) * 5 - 2, torch.full((1, 3, 4), 7.0)])
    heat = min_max(maps)
    for mine, source in zip(heat[:2], maps[:2], strict=True):
        assert (mine.min(), mine.max()) == (0, 1)
        torch.testing.assert_close(mine, (source - source.min()) / (source.max() - source.min()))
    assert (heat[2] == 0).all(), "a constant map says nothing"
    assert torch.equal(binary_masks(heat), heat > 0.5)
    assert torch.equal(binary_masks(heat[:1], None), heat[:1] > heat[0].mean())
    assert not binary_masks(heat[2:], None).any()


def test_upsample_keeps_constants_and_shape():
    flat = upsample(torch.full((2, 3, 4, 4), 2.0), (9, 7))
    torch.testing.assert_close(flat, torch.full((2, 3, 9, 7), 2.0))
    step = upsample(torch.tensor([[0.0, 1.0]]), (1, 8))
    assert (step.diff() >= 0).all()


def test_label_map_by_hand():
    maps = torch.tensor([[[0.0, 4.0], [1.0, 0.0]], [[8.0, 0.0], [0.0, 0.0]]])
    assert label_map(maps).tolist() == [[1, 0], [0, -1]]
    assert label_map(maps, none=0.5).tolist() == [[1, -1], [-1, -1]]
    assert label_map(maps, none=0.5, shared=False).tolist() == [[1, 0], [-1, -1]]


@pytest.mark.parametrize("seed", range(8))
def test_run_lengths_like_pixel_by_pixel(seed):
    mask = noise(5, 7, seed=seed) > 0.1 * seed + 0.1
    expected, current = [0], False
    for value in np.asarray(mask).flatten(order="F"):
        if value != current:
            expected.append(0)
            current = value
        expected[-1] += 1
    assert rle(mask) == {"size": [5, 7], "counts": expected}
    assert torch.equal(from_rle(rle(mask)), mask)


@pytest.mark.parametrize("value", [True, False])
def test_run_lengths_of_one_value_and_of_damage(value):
    mask = torch.full((3, 2), value)
    assert torch.equal(from_rle(rle(mask)), mask)
    with pytest.raises(ValueError, match="add up to 7, not 3 x 2"):
        from_rle({"size": [3, 2], "counts": [7]})


def test_coco_annotations():
    masks = torch.zeros(3, 6, 8, dtype=torch.bool)
    masks[0, 2:4, 1:6] = True
    masks[2, 5, 7] = True
    coco = json.loads(json.dumps(coco_annotations(masks, ["cat", "dog", "car"], "a.png")))
    assert [c["name"] for c in coco["categories"]] == ["cat", "dog", "car"]
    assert coco["images"] == [{"id": 1, "file_name": "a.png", "height": 6, "width": 8}]
    first, second = coco["annotations"]
    assert (first["category_id"], first["bbox"], first["area"]) == (1, [1, 2, 5, 2], 10)
    assert (second["category_id"], second["bbox"], second["area"]) == (3, [7, 5, 1, 1], 1)
    assert torch.equal(from_rle(first["segmentation"]), masks[0])


def test_edges_are_followed():
    guide = torch.zeros(1, 3, 16, 16)
    guide[..., 6:] = 1
    maps = (torch.arange(4) >= 2).float().expand(1, 1, 4, 4)
    coarse = upsample(maps, (16, 16))[0, 0, 8]
    sharp = guided_upsample(guide, maps, cells=4, epsilon=1e-4)[0, 0, 8]
    assert sharp[6] - sharp[5] > 2 * (coarse[6] - coarse[5])
