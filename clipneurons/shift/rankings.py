"""What the words of a change can be ranked by: how far the mean embedding moved, or evidence."""

RANKINGS = ("mean", "evidence")
