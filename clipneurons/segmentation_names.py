"""Names of the ways to segment, known without loading any model."""

PAPER = "second-order votes"
SHARES = "second-order shares"
EFFECTS = "patch effects"
BEST = "refined patch effects"
OWN = (PAPER, "signed votes", "weighted votes", SHARES, EFFECTS, BEST)
PUBLISHED = (
    "raw attention",
    "rollout",
    "Partial-LRP",
    "LRP",
    "GradCAM",
    "Chefer 2021",
    "TextSpan",
    "MaskCLIP",
    "SCLIP",
    "ClearCLIP",
    "LeGrad",
)
# These do not look at the text.
CLASS_AGNOSTIC = ("raw attention", "rollout")


def method_names(kind: str) -> tuple[str, ...]:
    """Methods for a tower of kind "vit" or "resnet"; the best first."""
    found = OWN + PUBLISHED if kind == "vit" else OWN
    return (BEST, *(name for name in found if name != BEST))
