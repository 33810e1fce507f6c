import torch

from clipneurons.bundle.storage import along

DIRECTIONS = torch.tensor([[0.6, 0.8], [1.0, 0.0], [0.0, 0.0]])
ROWS = torch.tensor([[-1.2, -1.6], [0.0, 0.0], [0.0, 0.0]])


def test_rows_along_their_directions_are_their_lengths():
    torch.testing.assert_close(along(ROWS, DIRECTIONS), torch.tensor([-2.0, 0.0, 0.0]))
    rounded = along(ROWS.half().float(), DIRECTIONS.half().float())
    torch.testing.assert_close(rounded, torch.tensor([-2.0, 0.0, 0.0]), rtol=1e-3, atol=0)
    small = along(ROWS * 1e-6, DIRECTIONS)
    torch.testing.assert_close(small, torch.tensor([-2e-6, 0.0, 0.0]))


def test_one_row_that_lies_elsewhere_is_enough_for_none():
    for row, value in ((0, [-1.2, -1.61]), (1, [0.0, 0.01]), (2, [0.01, 0.0])):
        rows = ROWS.clone()
        rows[row] = torch.tensor(value)
        assert along(rows, DIRECTIONS) is None
