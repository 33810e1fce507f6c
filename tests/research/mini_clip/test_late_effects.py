import pytest
import torch
from torch.nn import functional as F

from clipneurons.lens.lens import Lens
from research.mini_clip.late_effects import later_layers, lost_accuracy
from tests.helpers.models import images, tiny_vit


def test_lost_accuracy_is_that_of_effects_taken_out_one_by_one():
    clip = tiny_vit(layers=6)
    batch = images(70, clip)
    layers = later_layers(clip)
    assert layers == (3, 4)
    plain = 100 * F.normalize(clip.encode_image(batch), dim=1).double()
    classes = F.normalize(plain[:20] - plain.mean(0), dim=1).float()
    labels = (plain @ classes.double().T).argmax(1)
    labels[:10] = (labels[:10] + 1) % 20  # some are read wrongly

    contributions = Lens(clip, layers)(batch)[1]
    without = {}
    for layer in layers:
        found = contributions[layer]
        effects = found.dense(torch.arange(found.directions.units)).double()
        without[layer] = torch.zeros_like(plain)
        for unit in range(effects.shape[1]):
            without[layer] += effects[:, unit] - effects[:, unit].mean(0)

    def lost(rows):
        right = ((rows @ classes.double().T).argmax(1) == labels).double().mean()
        return 100 * float(1 - right / (60 / 70))

    together = lost(plain - sum(without.values()))
    worst = max(lost(plain - without[layer]) for layer in layers)
    assert together != 0
    assert lost_accuracy(clip, batch, classes, labels) == pytest.approx((together, worst), abs=1e-4)
