import numpy as np
import torch

from clipneurons.stats.centring import without_shared


def test_rows_without_their_mean_have_norm_one():
    rows = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean = [sum(row[j] for row in rows.tolist()) / 6 for j in range(4)]
    for row, found in zip(rows.tolist(), without_shared(rows), strict=True):
        rest = np.array([row[j] - mean[j] for j in range(4)])
        np.testing.assert_allclose(found, rest / np.sqrt((rest**2).sum()), rtol=1e-12)


def test_a_row_that_equals_the_mean_stays_zero():
    assert without_shared(torch.ones(1, 3)).tolist() == [[0, 0, 0]]
