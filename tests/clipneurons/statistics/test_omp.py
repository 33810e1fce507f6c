"""Orthogonal matching pursuit against scikit-learn, the authors' numbers and hard dictionaries."""

import warnings

import jaxtyping
import numpy as np
import pytest
import torch
from sklearn.linear_model import orthogonal_mp
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from clipneurons.statistics.omp import by_magnitude, omp, omp_sizes, reconstruct
from tests.helpers.models import official_numbers


def seeded(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def dictionary(kind: str, texts=400, embed=48, seed=0) -> torch.Tensor:
    """Unit rows in float64; the correlated kind has a common mean and clusters, as CLIP's texts."""
    rows = seeded(texts, embed, seed=seed, dtype=torch.float64)
    if kind == "correlated":
        centres = seeded(20, embed, seed=seed + 1, dtype=torch.float64)
        rows = 0.3 * rows + centres[torch.arange(texts) % 20] + 2 * centres[0]
    return normalize(rows, dim=1)


def dense(indices, coefficients, texts: int) -> np.ndarray:
    out = torch.zeros(len(indices), texts, dtype=torch.float64)
    return out.scatter_add_(1, indices, coefficients.double()).numpy()


def sklearn_omp(targets, texts, components: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # it stops early without saying where
        solved = orthogonal_mp(
            texts.double().numpy().T, targets.double().numpy().T, n_nonzero_coefs=components
        )
    return solved.reshape(len(texts), len(targets)).T


def assert_same(ours: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_array_equal(ours != 0, theirs != 0)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_reproduces_the_authors_numbers(layer):
    numbers, meta = official_numbers()
    texts = normalize(numbers["texts"], dim=1)
    found = omp(numbers[f"layer{layer}.directions"], texts, meta["omp_components"])
    expected = numbers[f"layer{layer}.omp_unit_texts"].double().numpy()
    ours = dense(*found, len(texts))
    np.testing.assert_array_equal(ours != 0, expected != 0)
    np.testing.assert_allclose(ours, expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("components", [1, 5, 24])
@pytest.mark.parametrize("kind", ["random", "correlated"])
def test_same_as_scikit_learn(kind, components, dtype):
    texts = dictionary(kind).to(dtype)
    targets = seeded(40, 48, seed=7).to(dtype)
    indices, coefficients = omp(targets, texts, components, batch=16)
    assert coefficients.dtype == dtype
    assert_same(dense(indices, coefficients, 400), sklearn_omp(targets, texts, components))


@pytest.mark.parametrize("distance", [0.0, 1e-5, 1e-3, 1e-1])
@pytest.mark.parametrize("kind", ["random", "correlated"])
def test_duplicates_and_near_duplicates(kind, distance):
    once = dictionary(kind, texts=150)
    noise = seeded(300, 48, seed=3, dtype=torch.float64)
    texts = normalize(once.repeat(2, 1) + distance * normalize(noise, dim=1), dim=1)
    targets = seeded(30, 48, seed=7, dtype=torch.float64)
    ours = dense(*omp(targets, texts, 20), 300)
    theirs = sklearn_omp(targets, texts, 20)
    if distance == 0:  # which of two equal texts is chosen means nothing; choosing both does
        assert not ((ours[:, :150] != 0) & (ours[:, 150:] != 0)).any()
        ours, theirs = (a[:, :150] + a[:, 150:] for a in (ours, theirs))
    assert_same(ours, theirs)


def test_coefficients_of_nearly_dependent_texts():
    # The third text is nearly a combination of the first two, and all three are needed.
    texts = normalize(seeded(3, 48, dtype=torch.float64), dim=1)
    texts[2] = normalize(texts[0] + texts[1] + 1e-4 * texts[2], dim=0)
    truth = torch.tensor([[1.0, -2.0, 3.0]], dtype=torch.float64)
    indices, coefficients = omp(truth @ texts, texts, 3)
    np.testing.assert_allclose(dense(indices, coefficients, 3), truth.numpy(), atol=1e-7)


def test_float64_texts_are_compared_in_float64():
    base = normalize(seeded(2, 48, dtype=torch.float64), dim=1)
    target = base[:1]
    near = normalize(target[0] + 1e-5 * base[1], dim=0)
    texts = torch.stack([near, target[0]])  # cosines 1 - 5e-11 and 1
    indices, _ = omp(target, texts, 1)
    assert indices.item() == 1


def test_more_components_than_independent_texts():
    once = normalize(seeded(3, 48), dim=1)
    texts = once.repeat(40, 1)
    targets = seeded(10, 48, seed=1)
    indices, coefficients = omp(targets, texts, 8)
    assert ((coefficients != 0).sum(1) == 3).all()
    assert (indices[:, 3:] == indices[:, :1]).all()
    assert all(len({int(i) % 3 for i in row[:3]}) == 3 for row in indices)
    expected = targets @ torch.linalg.pinv(once) @ once
    torch.testing.assert_close(reconstruct(indices, coefficients, texts), expected)


@pytest.mark.parametrize(("texts", "embed"), [(5, 48), (60, 8)])
def test_more_components_than_texts_or_dimensions(texts, embed):
    pool = normalize(seeded(texts, embed), dim=1)
    targets = seeded(6, embed, seed=1)
    indices, coefficients = omp(targets, pool, 64)
    assert indices.shape == coefficients.shape == (6, 64)
    assert ((coefficients != 0).sum(1) == min(texts, embed)).all()
    assert (coefficients[:, min(texts, embed) :] == 0).all()
    assert indices.min() >= 0
    assert indices.max() < texts


def test_a_zero_target_gets_zero_coefficients_and_disturbs_nobody():
    texts = dictionary("correlated").float()
    targets = seeded(5, 48, seed=7)
    with_zero = targets.clone()
    with_zero[2] = 0
    indices, coefficients = omp(with_zero, texts, 10)
    alone = omp(targets, texts, 10)
    assert (coefficients[2] == 0).all()
    assert (indices[2] == 0).all()
    others = [0, 1, 3, 4]
    torch.testing.assert_close(indices[others], alone[0][others])
    torch.testing.assert_close(coefficients[others], alone[1][others])
    indices, coefficients = omp(torch.zeros(3, 48), texts, 4)
    assert not indices.any()
    assert not coefficients.any()


def test_stops_when_the_target_is_explained():
    texts = dictionary("random").float()
    truth = torch.zeros(1, 400)
    truth[0, [3, 50, 111]] = torch.tensor([2.0, -1.5, 1.0])
    indices, coefficients = omp(truth @ texts, texts, 10)
    assert (coefficients[0, :3] != 0).all()
    assert (coefficients[0, 3:] == 0).all()
    np.testing.assert_allclose(dense(indices, coefficients, 400), truth.numpy(), atol=1e-5)


@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_scale_of_the_target_does_not_matter(scale):
    texts = dictionary("correlated").float()
    targets = seeded(8, 48, seed=7)
    indices, coefficients = omp(targets, texts, 16)
    scaled_indices, scaled = omp(targets * scale, texts, 16)
    torch.testing.assert_close(scaled_indices, indices)
    torch.testing.assert_close(scaled / scale, coefficients, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, 15, 16, 17, 2047, 2048, 2049, 4101])
def test_every_text_can_be_found(count):
    # Pools that do and do not fill the blocks and chunks of the search; the last rows matter most.
    texts = normalize(seeded(count, 24), dim=1)
    rows = torch.tensor([0, count // 2, count - 1])
    for sign in (1, -1):
        indices, coefficients = omp(sign * 3 * texts[rows], texts, 1)
        assert indices[:, 0].tolist() == rows.tolist()
        torch.testing.assert_close(coefficients, torch.full((3, 1), sign * 3.0))


def test_batches_do_not_matter_and_progress_counts_targets():
    texts = dictionary("correlated").float()
    targets = seeded(21, 48, seed=7)
    whole = omp(targets, texts, 12)
    done = []
    for batch in (1, 8, 21):
        done.clear()
        indices, coefficients = omp(targets, texts, 12, batch=batch, progress=done.append)
        assert sum(done) == 21
        torch.testing.assert_close(indices, whole[0])
        torch.testing.assert_close(coefficients, whole[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_several_sizes_at_once(dtype):
    texts = dictionary("correlated").to(dtype)
    targets = seeded(9, 48, seed=7).to(dtype)
    indices, coefficients = omp_sizes(targets, texts, (4, 8, 32))
    assert list(coefficients) == [4, 8, 32]
    for size, solved in coefficients.items():
        expected = omp(targets, texts, size)
        assert torch.equal(indices[:, :size], expected[0])
        torch.testing.assert_close(solved, expected[1], rtol=1e-6, atol=1e-9)


def test_what_is_left_is_orthogonal_to_the_chosen_texts():
    texts = dictionary("correlated").float()
    targets = normalize(seeded(20, 48, seed=7), dim=1)
    indices, coefficients = omp(targets, texts, 30)
    left = targets - reconstruct(indices, coefficients, texts)
    assert torch.einsum("td,tcd->tc", left, texts[indices]).abs().max() < 1e-5


def test_by_magnitude():
    indices = torch.tensor([[7, 8, 9]])
    ordered = by_magnitude(indices, torch.tensor([[0.1, -3.0, 2.0]]))
    assert ordered[0].tolist() == [[8, 9, 7]]
    torch.testing.assert_close(ordered[1], torch.tensor([[-3.0, 2.0, 0.1]]))


class LargestTensor(TorchDispatchMode):
    """Number of elements of the largest tensor that any operation returns."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.numel = max(self.numel, out.numel())
        return out


def test_memory_never_holds_all_products():
    targets, texts = seeded(64, 8), normalize(seeded(20_000, 8), dim=1)
    with LargestTensor() as largest:
        omp(targets, texts, 2)
    assert largest.numel < 64 * 20_000 / 4


BAD = {
    "rows of norm 1.*1 of 20.*row 4 with norm 0": lambda y, t: (y, t.index_fill(0, row(4), 0), 3),
    "rows of norm 1.*20 of 20.*norm 2": lambda y, t: (y, 2 * t, 3),
    "texts must be finite.*1 of 20.*row 4": lambda y, t: (y, t.index_fill(0, row(4), torch.nan), 3),
    "targets must be finite.*row 2": lambda y, t: (y.index_fill(0, row(2), torch.inf), t, 3),
    "targets have 8 dimensions and texts 7": lambda y, t: (y, normalize(t[:, :7], dim=1), 3),
    "at least 1 component.*0": lambda y, t: (y, t, 0),
    "at least one text": lambda y, t: (y, t[:0], 3),
    "targets must be float32 or float64, not torch.float16": lambda y, t: (y.half(), t, 3),
}


def row(index: int) -> torch.Tensor:
    return torch.tensor([index])


@pytest.mark.parametrize("message", BAD)
def test_refuses(message, monkeypatch):
    # Users do not run with the shape checks that pytest switches on.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    arguments = BAD[message](seeded(5, 8), normalize(seeded(20, 8, seed=1), dim=1))
    with pytest.raises(ValueError, match=message):
        omp(*arguments)
