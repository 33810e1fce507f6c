from dataclasses import fields, replace

import pytest
import torch

from clipneurons.bundle.bundle import load_bundle, save_bundle
from clipneurons.bundle.config import CUES, BundleDamaged
from clipneurons.bundle.cue_recordings import CueRecordings, LayerRecordings
from tests.helpers.tiny import tiny_bundle

CUE_COUNT = 3


@pytest.fixture
def bundle():
    """A bundle with random recordings of three cues; two texts share one, others have none."""
    plain, generator = tiny_bundle(), torch.Generator().manual_seed(0)

    def layer(units: int) -> LayerRecordings:
        order = torch.rand(CUE_COUNT, units, generator=generator).argsort(dim=1).int()
        effects = torch.randn(CUE_COUNT, units, generator=generator)
        return LayerRecordings(torch.randn(CUE_COUNT, 24, generator=generator), order, effects)

    row = torch.tensor([0, 1, 1, 2, -1, -1, -1, -1], dtype=torch.int32)
    layers = {number: layer(len(a.directions)) for number, a in plain.layers.items()}
    embeddings = torch.randn(CUE_COUNT, 24, generator=generator)
    return replace(plain, cues=CueRecordings(row, layers, embeddings))


def values(cues: CueRecordings) -> dict[str, torch.Tensor]:
    found = {"row": cues.row, "embeddings": cues.embeddings}
    for layer, mine in cues.layers.items():
        found |= {f"{layer} {f.name}": getattr(mine, f.name) for f in fields(mine)}
    return found


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_recordings_come_back_and_are_optional(bundle, tmp_path, storage):
    bundle = replace(bundle, config=replace(bundle.config, storage=storage))
    folder = save_bundle(bundle, tmp_path / "b")
    back = load_bundle(folder)
    rounding = 0 if storage == "float32" else 1e-3
    expected = values(bundle.cues)
    assert values(back.cues).keys() == expected.keys()
    for name, value in values(back.cues).items():
        torch.testing.assert_close(value, expected[name], rtol=rounding, atol=rounding)
    content = (folder / CUES).read_bytes()
    assert (save_bundle(back, folder) / CUES).read_bytes() == content
    save_bundle(replace(back, cues=None), folder)
    assert not (folder / CUES).exists()
    assert load_bundle(folder).cues is None


def test_recordings_that_do_not_fit_are_refused(bundle, tmp_path):
    cues = bundle.cues
    first = cues.layers[1]
    wrong = {
        "row is ": replace(cues, row=cues.row[:-1]),
        "row is not all": replace(cues, row=cues.row + 1),
        "written is ": _layer(cues, written=first.written[:, :-1]),
        "units is not all": _layer(cues, units=first.units + 1),
        "effects is ": _layer(cues, units=first.units[:, 1:], effects=first.effects[:, 1:]),
        "embeddings holds": replace(cues, embeddings=cues.embeddings * torch.nan),
        "cues of layers": replace(cues, layers={1: first}),
    }
    for said, one in wrong.items():
        with pytest.raises(BundleDamaged, match=said):
            save_bundle(replace(bundle, cues=one), tmp_path / "c")


def _layer(cues: CueRecordings, **changes) -> CueRecordings:
    return replace(cues, layers=cues.layers | {1: replace(cues.layers[1], **changes)})
