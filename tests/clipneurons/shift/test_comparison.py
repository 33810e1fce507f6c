import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from clipneurons.lens.lens import Lens
from clipneurons.shift.comparison import EmbeddedTextPool, along_units, compare
from clipneurons.shift.monitor import Monitor
from clipneurons.shift.profile import Profile, Profiler
from clipneurons.stats.two_sample import permuted_labels, unit_tests, without_rounding
from tests.helpers.models import images, tiny_resnet, tiny_vit
from tests.helpers.tiny import tiny_bundle

EMBED, UNITS = 16, 40


def pool(count=30, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, EMBED, generator=generator)
    texts = tuple(f"word {i}" for i in range(count))
    return EmbeddedTextPool(texts, torch.nn.functional.normalize(rows, dim=-1))


def profile(count, seed=0, planted=None, share=1.0):
    """Skewed units of random directions; ``planted`` is one more."""
    generator = torch.Generator().manual_seed(seed)
    units = torch.randn(count, UNITS, generator=generator).exp()
    directions = torch.randn(UNITS, EMBED, generator=torch.Generator().manual_seed(99))
    if planted is not None:
        marked = torch.rand(count, generator=generator) < share
        directions[0] = 5 * planted
        units[:, 0] += 4 * marked
    else:
        directions[0] = 5 * pool().embeddings[0]
    effects = units @ torch.nn.functional.normalize(directions, dim=-1)
    places = torch.stack([torch.randn(count, EMBED, generator=generator), effects], 1)[:, None]
    pixels = torch.randn(count, 8, generator=generator)
    return Profile(torch.nn.functional.normalize(effects, dim=-1), units, places, pixels)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_profiles_are_projections_of_dense_effects_on_the_directions(kind):
    clip = tiny_vit() if kind == "vit" else tiny_resnet()
    layers = (0, 2) if kind == "vit" else (4,)
    bundle = tiny_bundle(layers=layers, clip=clip)
    lens = Lens(clip, layers)
    batch = images(3, clip)
    got = Profiler(lens, bundle)(batch)
    representation, contributions = lens(batch)
    expected = []
    for layer in layers:
        rows = bundle.layers[layer].directions
        dense = contributions[layer].dense(torch.arange(len(rows)))
        expected.append((dense * rows).sum(-1))
    assert torch.allclose(got.units, torch.cat(expected, 1), rtol=1e-4, atol=1e-4)
    cosine = torch.nn.functional.cosine_similarity(got.embeddings, representation)
    assert torch.allclose(cosine, torch.ones(3))
    assert Profiler(lens, bundle).names[-1] == (layers[-1], len(rows) - 1)


def test_texts_are_ranked_by_the_change_of_the_mean_embedding():
    texts, reference, new = pool(), profile(20, 1), profile(30, 2, pool().embeddings[4])
    change = {}
    for text, row in zip(texts.texts, texts.centred.double(), strict=True):
        before, after = (
            sum(float(row @ e) for e in side.embeddings.double()) / len(side)
            for side in (reference, new)
        )
        change[text] = 100 * (after - before)
    shift = compare(reference, new, texts, 20)
    more, less = (sorted(change, key=change.get, reverse=r) for r in (True, False))
    assert list(shift.more.texts) == more
    assert list(shift.less.texts) == less
    assert shift.more.scores[0] == pytest.approx(change[more[0]], rel=1e-4)


def test_a_planted_concept_is_found_named_and_shown():
    texts = pool()
    reference = profile(200, 1)
    new = profile(200, 2, texts.embeddings[0], share=0.4)
    shift = compare(reference, new, texts, 200)
    assert shift.p <= 1 / 201 + 1e-6
    assert shift.top_units(1) == [0]
    assert shift.units.q[0] < 0.05
    assert shift.more.texts[0] == "word 0"
    marked = new.units[:, 0] > 3
    order = shift.along_change.argsort(descending=True)
    assert marked[order[:20]].float().mean() >= 0.7
    assert marked[order[-60:]].float().mean() <= 0.2


def test_without_a_shift_p_values_are_uniform_and_discoveries_rare():
    values, discoveries = [], 0
    for seed in range(60):
        shift = compare(profile(15, 2 * seed), profile(25, 2 * seed + 1), pool(), 99, seed)
        values.append(shift.p)
        discoveries += bool((shift.units.q <= 0.05).any())
    values = torch.tensor(values)
    assert (values <= 0.05).sum() <= 8  # more than 8 of 60 at 0.05: once in 200
    assert 19 <= (values <= 0.5).sum() <= 41
    assert discoveries <= 8


def test_equal_sets_do_not_differ():
    reference = profile(30)
    shift = compare(reference, reference, pool(), 50)
    assert shift.p > 0.9
    assert shift.units.change.abs().max() < 1e-5


@pytest.mark.parametrize("sizes", [(30, 30), (30, 50), (2, 30)])
@pytest.mark.parametrize("noise", [0.0, 1e-6])
def test_one_image_again_and_again_is_no_change(sizes, noise):
    """Not even where sums in another order, as in batches of another size, differ by rounding."""
    one = profile(1)
    reference, new = (one[[0] * size] for size in sizes)
    new = replace(new, **{n: v * (1 + noise) for n, v in vars(new).items() if n != "pixels"})
    shift = compare(reference, new, pool(), 99)
    assert shift.p == 1
    assert set(shift.tests.values()) == {1.0}
    assert shift.units.q.min() == 1


def test_rounding_is_what_is_small_beside_the_values():
    values = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    values[:, 1] = 1000 + 1e-4 * values[:, 1]
    values[:, 2] = 1e-3 * values[:, 2]
    kept = without_rounding(values)
    assert torch.equal(kept[:, 0], values[:, 0])
    assert torch.equal(kept[:, 3], values[:, 3])
    assert not kept[:, 1:3].any(), "beside a thousand both are rounding"
    values[:, 1] = 0
    assert torch.equal(without_rounding(values)[:, 2], values[:, 2])


def test_without_discoveries_images_are_ranked_by_what_changed_most():
    values = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    tests = unit_tests(values, permuted_labels(5, 5, 20))
    standard = (values - values.mean(0)) / values.std(0)
    assert tests.q.min() > 0.1
    assert torch.allclose(
        along_units(values, tests), standard @ (tests.score / tests.score.norm()), atol=1e-5
    )


def monitor(**options):
    watched = EmbeddedTextPool(("plant", "other"), pool().embeddings[:2])
    return Monitor(profile(150, 1), pool(), 60, watched, permutations=99, **options)


def test_monitor_windows_do_not_depend_on_how_images_arrive():
    stream = Profile.cat([profile(60, 5), profile(90, 6, pool().embeddings[0])])
    whole = monitor()
    windows = whole.update(stream)
    assert [(w.first, w.last) for w in windows] == [(0, 59), (60, 119)]
    dribble = monitor()
    for start in range(0, 150, 7):
        dribble.update(stream[start : start + 7])
    assert dribble.windows == whole.windows
    assert (whole.flush().first, whole.flush()) == (120, None)
    assert [w.alarm for w in windows] == [False, True]
    assert windows[1].texts[0]["text"] == "word 0"
    before, after = (w.watched["plant"][0] for w in windows)
    assert after - before > 4 * windows[1].watched["plant"][1]
    assert windows[0].texts == windows[0].images == windows[0].units == []
    assert all(60 <= i < 120 for i in windows[1].images)
    assert json.loads(json.dumps(whole.to_json()))["windows"][0]["p"] == windows[0].p


def test_monitor_goes_on_in_another_process(tmp_path):
    stream = profile(150, 5)
    whole = monitor()
    whole.update(stream)
    half = monitor()
    half.update(stream[:100])
    half.save(tmp_path / "monitor.safetensors")
    again = Monitor.load(tmp_path / "monitor.safetensors", pool(), half.watched)
    again.update(stream[100:])
    assert again.windows == whole.windows
    assert again.flush().last == 149
    with pytest.raises(ValueError, match="expected the same concepts"):
        Monitor.load(tmp_path / "monitor.safetensors", pool())


def test_a_single_image_waits_for_the_next(tmp_path):
    mine = monitor()
    mine.update(profile(61, 5))
    assert mine.flush() is None
    assert mine.to_json()["waiting"] == 1
    mine.save(tmp_path / "monitor.safetensors")
    again = Monitor.load(tmp_path / "monitor.safetensors", pool(), mine.watched)
    again.update(profile(3, 6))
    window = again.flush()
    assert (window.first, window.last, again.waiting) == (60, 63, 0)


def test_a_monitor_goes_on_with_its_own_texts_and_units_only(tmp_path):
    path = tmp_path / "monitor.safetensors"
    mine = monitor()
    mine.save(path)
    with pytest.raises(ValueError, match="the texts, and their embeddings"):
        Monitor.load(path, pool(seed=1), mine.watched)
    other = profile(4)
    other = replace(other, units=other.units[:, 1:])
    with pytest.raises(ValueError, match="expected the same bundle"):
        mine.update(other)
    tensors, metadata = load_file(path), {"monitor": safe_open(path, "pt").metadata()["monitor"]}
    old = {name: value for name, value in tensors.items() if "places" not in name}
    save_file(old, path, metadata)
    with pytest.raises(ValueError, match="not a whole file of `Monitor"):
        Monitor.load(path, pool(), mine.watched)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="not a whole file"):
        Monitor.load(path, pool())


@pytest.mark.parametrize(
    "wrong",
    [{"window": "60"}, {"seen": 1.5}, {"watched": 3}, {"windows": [{"units": 1}]}, {"level": "a"},
     {"windows": None}],
)  # fmt: skip
def test_damaged_files_of_a_monitor_are_one_line(tmp_path, wrong):
    path = tmp_path / "monitor.safetensors"
    mine = monitor()
    mine.save(path)
    state = json.loads(safe_open(path, "pt").metadata()["monitor"])
    save_file(load_file(path), path, {"monitor": json.dumps(state | wrong)})
    with pytest.raises(ValueError, match="not a whole file of `Monitor"):
        Monitor.load(path, pool(), mine.watched)


def test_a_reference_that_is_not_finite_is_refused():
    broken = profile(20)
    broken.embeddings[3, 0] = torch.nan
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        Monitor(broken, pool(), 5)


def test_monitors_that_could_never_raise_an_alarm_are_refused():
    with pytest.raises(ValueError, match="cannot give a p-value"):
        monitor(level=0.001)
    with pytest.raises(ValueError, match="windows of at least two"):
        Monitor(profile(10), pool(), window=1)


@pytest.mark.parametrize("make", [tiny_vit, tiny_resnet])
def test_a_picture_that_is_not_square_is_the_mean_over_its_squares(make):
    clip = make(embed_dim=24)
    bundle = tiny_bundle(clip=clip)
    profiler = Profiler(Lens(clip, bundle.config.layers), bundle)
    noise = torch.randint(0, 256, (64, 110, 3), generator=torch.Generator().manual_seed(0))
    wide = Image.fromarray(noise.byte().numpy())
    square = wide.crop((0, 0, 64, 64))
    found = profiler.of_images([square, wide, square], batch=2)
    halves = [wide.crop((0, 0, 64, 64)), wide.crop((46, 0, 110, 64))]
    parts = profiler(torch.stack([clip.preprocess(half) for half in halves]))
    alone = profiler(clip.preprocess(square)[None])
    for name in ("embeddings", "units", "places"):
        rows = getattr(parts, name).double()
        pairs = zip(rows[0].flatten().tolist(), rows[1].flatten().tolist(), strict=True)
        mean = torch.tensor([(a + b) / 2 for a, b in pairs], dtype=torch.float64)
        mean = mean.view_as(rows[0])
        if name == "embeddings":
            mean = mean / sum(value**2 for value in mean.tolist()) ** 0.5
        torch.testing.assert_close(getattr(found, name)[1].double(), mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(getattr(found, name)[0], getattr(alone, name)[0])


def test_of_squares_nothing_changes():
    clip = tiny_vit(embed_dim=24)
    bundle = tiny_bundle(clip=clip)
    profiler = Profiler(Lens(clip, bundle.config.layers), bundle)
    pictures = [Image.new("RGB", (80, 80), (40 * i, 10, 200)) for i in range(5)]
    counted = []
    found = profiler.of_images(pictures, batch=5, progress=counted.append)
    whole = profiler(torch.stack([clip.preprocess(picture) for picture in pictures]))
    for name in ("embeddings", "units", "places"):
        assert torch.equal(getattr(found, name), getattr(whole, name))
    assert counted == [5]
