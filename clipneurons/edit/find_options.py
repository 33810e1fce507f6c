"""How `mending` looks for units."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FindOptions:
    """How units are looked for; chosen on other pairs of classes than those of the report.

    candidates  units that pass the screening by the difference of group means
    most        units at most
    folds       of the cross-validation that chooses their number
    softness    scale of the logistic loss, of the mean |margin|
    sharpness   of the soft maximum over the groups' losses
    kept        share of the best improvement that the fewest units must reach
    lost        share of images, over groups, that the average may lose
    """

    candidates: int = 1000
    most: int = 256
    folds: int = 5
    softness: float = 0.5
    sharpness: float = 10.0
    kept: float = 0.9
    lost: float = 0.005

    def __post_init__(self) -> None:
        for name in ("candidates", "most"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, not {getattr(self, name)}")
        if self.folds < 2:
            raise ValueError(f"folds: expected at least 2, not {self.folds}")

    @property
    def sizes(self) -> list[int]:
        """Numbers of units that are compared, about a quarter apart."""
        sizes = {min(self.most, round(1.25**step)) for step in range(40)}
        return sorted(sizes)
