"""How many different things a unit's decomposition is about."""

import pytest
import torch
from torch.nn.functional import normalize

from research.papers.effective_concepts import effective_concepts


def test_synonyms_count_once_and_zero_coefficients_not_at_all():
    texts = torch.eye(8, 24)
    texts[1] = normalize(texts[0] + 1e-4 * texts[2], dim=0)  # the first two are synonyms
    indices = torch.tensor([[0, 1, 2], [3, 4, 5], [6, 7, 2], [0, 1, 2]]).int()
    coefficients = torch.tensor([[0.5, 0.5, 0.0], [1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0] * 3])
    counts = effective_concepts(indices, coefficients, texts)
    assert counts.tolist() == pytest.approx([1, 3, 1, 0], abs=1e-3)
