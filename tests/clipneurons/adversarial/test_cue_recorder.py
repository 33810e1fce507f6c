from dataclasses import replace

import pytest
import torch

from clipneurons.adversarial.cue_recorder import record_cues
from clipneurons.adversarial.cue_request import RECORDED, RECORDED_EMBEDDINGS, CueRequest
from clipneurons.adversarial.cues import CLASS_TEMPLATES, find_cues
from clipneurons.bundle.cue_recordings import LOUDEST
from clipneurons.lens.lens import Lens
from clipneurons.text.embedding import embed_texts
from tests.helpers.models import tiny_resnet, tiny_vit
from tests.helpers.packs import COLOURS, flat_composer
from tests.helpers.tiny import tiny_bundle

TEXTS = ["a bone", "the sky", "bones", "a leash", "a palm tree", "a red leash", "pie", "a cat"]


@pytest.fixture(scope="module", params=["vit", "resnet"])
def made(request):
    """A bundle, its lens, a composer that keeps what it draws, and three images a cue."""
    clip = tiny_vit() if request.param == "vit" else tiny_resnet()
    bundle = tiny_bundle((0, 2), clip.neurons, clip.heads, clip.embed_dim, kind=request.param)
    bundle = replace(bundle, texts=TEXTS)
    lens = Lens(clip, list(bundle.layers) if request.param == "vit" else ())
    composer = flat_composer(max(clip.image_size))
    drawn = {}

    def generator(companion, descriptions, seeds):
        for image in composer(companion, descriptions, seeds):
            drawn.setdefault(image.description.cues, []).append((companion, image))
            yield image

    recorded = record_cues(bundle, lens, generator, composer.concept, list(COLOURS), count=3)
    return bundle, lens, drawn, recorded


def loops(bundle, lens, drawn):
    """By cue every unit's mean effect along its direction, less that of all cues; the
    same of the embeddings; the size of a layer's largest effect before, for rounding."""
    effects, embeddings = {}, {}
    for cue, images in drawn.items():
        mine, rows = {layer: [] for layer in bundle.layers}, []
        for _, image in images:
            embedded, found = lens(lens.clip.preprocess(image.image)[None])
            row = embedded[0].double()
            rows.append(row / sum(float(x) ** 2 for x in row) ** 0.5)
            for layer, arrays in bundle.layers.items():
                written = found[layer].dense(torch.arange(len(arrays.directions)))[0].double()
                pairs = zip(written, arrays.directions.double(), strict=True)
                mine[layer].append(torch.stack([(a * b).sum() for a, b in pairs]))
        effects[cue] = {layer: sum(x) / len(x) for layer, x in mine.items()}
        embeddings[cue] = sum(rows) / len(rows)
    count, scale = len(drawn), {}
    for layer in bundle.layers:
        mean = sum(found[layer] for found in effects.values()) / count
        scale[layer] = max(float(found[layer].abs().max()) for found in effects.values())
        for found in effects.values():
            found[layer] = found[layer] - mean
    mean = sum(embeddings.values()) / count
    return effects, {cue: row - mean for cue, row in embeddings.items()}, scale


def test_recordings_are_a_loop_over_images_and_units(made):
    bundle, lens, drawn, recorded = made
    assert recorded.row.tolist() == [0, -1, 0, 1, 2, 1, -1, 3]
    effects, embeddings, scale = loops(bundle, lens, drawn)
    for row, name in enumerate(("bone", "leash", "palm tree", "cat")):
        expected = embeddings[(name,)].tolist()
        assert recorded.embeddings[row].tolist() == pytest.approx(expected, abs=1e-5)
        for layer, wanted in effects[(name,)].items():
            mine, rounding = recorded.layers[layer], 2e-5 * scale[layer]
            units = mine.units[row].tolist()
            assert len(set(units)) == len(units) == min(LOUDEST, len(wanted))
            found = mine.effects[row].double()
            assert float((found - wanted[units]).abs().max()) < rounding
            assert found.abs().tolist() == sorted(found.abs().tolist(), reverse=True)
            assert float(found.abs().min()) >= sorted(wanted.abs().tolist())[-len(units)] - rounding
            directions = bundle.layers[layer].directions.double()
            written = sum(effect * row for effect, row in zip(wanted, directions, strict=True))
            rounding *= len(wanted) ** 0.5
            assert float((mine.written[row].double() - written).abs().max()) < rounding


def test_every_cue_is_drawn_beside_the_same_objects_with_the_same_seeds(made):
    _, _, drawn, _ = made
    kept = {cue: [(c, p.seed) for c, p in mine] for cue, mine in drawn.items()}
    assert set(kept) == {("bone",), ("leash",), ("palm tree",), ("cat",)}
    assert len({tuple(beside) for beside in kept.values()}) == 1
    assert len(set(kept[("cat",)])) == 3


@pytest.mark.parametrize("method", RECORDED)
def test_cues_are_ordered_by_what_their_images_change(made, method):
    bundle, lens, drawn, recorded = made
    layers, effects = list(bundle.layers)[-1:], loops(bundle, lens, drawn)[0]
    request = CueRequest("zebra", "whale", layers=layers, method=method, count=50)
    cues = find_cues(replace(bundle, cues=recorded), lens.clip, request)
    true, target = embed_texts(lens.clip, ["zebra", "whale"], CLASS_TEMPLATES).double()
    for cue in (*cues.positive, *cues.negative):
        row = int(recorded.row[bundle.texts.index(cue.text)])
        mine = effects[list(drawn)[row]][layers[0]]
        expected, changed = 0.0, recorded.embeddings[row].double()
        if method == RECORDED_EMBEDDINGS:
            expected = sum(float(a * b) for a, b in zip(changed, target - true, strict=True))
            assert cue.units == ()
        else:
            shares = [0.0] * len(mine)
            for unit, direction in enumerate(bundle.layers[layers[0]].directions.double()):
                along = sum(float(a * b) for a, b in zip(direction, target - true, strict=True))
                shares[unit] = float(mine[unit]) * along
            expected = sum(shares)
            loudest = recorded.layers[layers[0]].units[row].tolist()
            behind = sorted((abs(shares[unit]) for unit in loudest), reverse=True)
            found = [abs(unit.share) for unit in cue.units]
            assert found == pytest.approx(behind[: len(found)], rel=1e-3, abs=1e-5)
            assert {unit.layer for unit in cue.units} == set(layers)
        assert cue.score == pytest.approx(expected, rel=1e-3, abs=1e-5)
    found = {cue.text for cue in (*cues.positive, *cues.negative)}
    assert found == {"a bone", "a leash", "a palm tree", "a red leash", "a cat"}  # bone and bones


def test_what_cannot_be_recorded_is_refused(made):
    bundle, lens, _, _ = made
    composer = flat_composer()
    with pytest.raises(ValueError, match="texts that can be drawn"):
        record_cues(bundle, lens, composer, lambda text: None, ["cat"])
    with pytest.raises(ValueError, match="got 4, 0 and 8"):
        record_cues(bundle, lens, composer, composer.concept, [])
    for method in RECORDED:
        with pytest.raises(ValueError, match="export evaluate cues"):
            find_cues(bundle, lens.clip, CueRequest("zebra", "whale", method=method))
