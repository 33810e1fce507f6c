from dataclasses import replace

import pytest
import torch

from clipneurons.adversarial.cue_recorder import record_cues
from clipneurons.adversarial.cue_request import CueRequest
from clipneurons.adversarial.cues import CLASS_TEMPLATES, find_cues
from clipneurons.adversarial.methods import RECORDED, RECORDED_EMBEDDINGS
from clipneurons.bundle.cue_recordings import LOUDEST
from clipneurons.lens.make import make_lens
from clipneurons.text.embedding import embed_texts
from tests.helpers.models import tiny_resnet, tiny_vit
from tests.helpers.packs import COLOURS, flat_composer
from tests.helpers.tiny import tiny_bundle

TEXTS = ["a bone", "the sky", "bones", "a leash", "a palm tree", "a red leash", "pie", "a cat"]


@pytest.fixture(scope="module", params=["vit", "resnet"])
def made(request):
    """A bundle, its lens, a composer that keeps what it paints, and three pictures a cue."""
    clip = tiny_vit() if request.param == "vit" else tiny_resnet()
    bundle = tiny_bundle((0, 2), clip.neurons, clip.heads, clip.embed_dim, kind=request.param)
    bundle = replace(bundle, texts=TEXTS)
    lens = make_lens(clip, list(bundle.layers) if request.param == "vit" else ())
    composer = flat_composer(max(clip.image_size))
    painted = {}

    def painter(companion, descriptions, seeds):
        for painting in composer(companion, descriptions, seeds):
            painted.setdefault(painting.description.cues, []).append((companion, painting))
            yield painting

    recorded = record_cues(bundle, lens, painter, composer.concept, list(COLOURS), pictures=3)
    return bundle, lens, painted, recorded


def loops(bundle, lens, painted):
    """By cue every unit's mean effect along its direction, less that of all cues; the
    same of the embeddings; the size of a layer's largest effect before, for rounding."""
    effects, embeddings = {}, {}
    for cue, paintings in painted.items():
        mine, rows = {layer: [] for layer in bundle.layers}, []
        for _, painting in paintings:
            embedded, found = lens(lens.clip.preprocess(painting.image)[None])
            row = embedded[0].double()
            rows.append(row / sum(float(x) ** 2 for x in row) ** 0.5)
            for layer, arrays in bundle.layers.items():
                written = found[layer].dense(torch.arange(len(arrays.directions)))[0].double()
                pairs = zip(written, arrays.directions.double(), strict=True)
                mine[layer].append(torch.stack([(a * b).sum() for a, b in pairs]))
        effects[cue] = {layer: sum(x) / len(x) for layer, x in mine.items()}
        embeddings[cue] = sum(rows) / len(rows)
    count, scale = len(painted), {}
    for layer in bundle.layers:
        mean = sum(found[layer] for found in effects.values()) / count
        scale[layer] = max(float(found[layer].abs().max()) for found in effects.values())
        for found in effects.values():
            found[layer] = found[layer] - mean
    mean = sum(embeddings.values()) / count
    return effects, {cue: row - mean for cue, row in embeddings.items()}, scale


def test_recordings_are_a_loop_over_pictures_and_units(made):
    bundle, lens, painted, recorded = made
    assert recorded.row.tolist() == [0, -1, 0, 1, 2, 1, -1, 3]
    effects, embeddings, scale = loops(bundle, lens, painted)
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


def test_every_cue_is_painted_beside_the_same_objects_with_the_same_seeds(made):
    _, _, painted, _ = made
    kept = {cue: [(c, p.seed) for c, p in mine] for cue, mine in painted.items()}
    assert set(kept) == {("bone",), ("leash",), ("palm tree",), ("cat",)}
    assert len({tuple(beside) for beside in kept.values()}) == 1
    assert len(set(kept[("cat",)])) == 3


@pytest.mark.parametrize("method", RECORDED)
def test_cues_are_ordered_by_what_their_pictures_change(made, method):
    bundle, lens, painted, recorded = made
    layers, effects = list(bundle.layers)[-1:], loops(bundle, lens, painted)[0]
    request = CueRequest("zebra", "whale", layers, method=method, words=50)
    cues = find_cues(replace(bundle, cues=recorded), lens.clip, request)
    true, target = embed_texts(lens.clip, ["zebra", "whale"], CLASS_TEMPLATES).double()
    for cue in (*cues.positive, *cues.negative):
        row = int(recorded.row[bundle.texts.index(cue.text)])
        mine = effects[list(painted)[row]][layers[0]]
        expected, changed = 0.0, recorded.embeddings[row].double()
        if method == RECORDED_EMBEDDINGS:
            expected = sum(float(a * b) for a, b in zip(changed, target - true, strict=True))
            assert cue.neurons == ()
        else:
            shares = [0.0] * len(mine)
            for unit, direction in enumerate(bundle.layers[layers[0]].directions.double()):
                along = sum(float(a * b) for a, b in zip(direction, target - true, strict=True))
                shares[unit] = float(mine[unit]) * along
            expected = sum(shares)
            loudest = recorded.layers[layers[0]].units[row].tolist()
            behind = sorted((abs(shares[unit]) for unit in loudest), reverse=True)
            found = [abs(neuron.share) for neuron in cue.neurons]
            assert found == pytest.approx(behind[: len(found)], rel=1e-3, abs=1e-5)
            assert {neuron.layer for neuron in cue.neurons} == set(layers)
        assert cue.score == pytest.approx(expected, rel=1e-3, abs=1e-5)
    found = {cue.text for cue in (*cues.positive, *cues.negative)}
    assert found == {"a bone", "a leash", "a palm tree", "a red leash", "a cat"}  # bone and bones


def test_what_cannot_be_recorded_is_refused(made):
    bundle, lens, _, _ = made
    composer = flat_composer()
    with pytest.raises(ValueError, match="phrases that can be drawn"):
        record_cues(bundle, lens, composer, lambda text: None, ["cat"])
    with pytest.raises(ValueError, match="got 4, 0 and 8"):
        record_cues(bundle, lens, composer, composer.concept, [])
    for method in RECORDED:
        with pytest.raises(ValueError, match="evaluate cues"):
            find_cues(bundle, lens.clip, CueRequest("zebra", "whale", method=method))
