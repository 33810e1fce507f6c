"""Names of the ways to segment, known without loading any model."""

PAPER = "second-order votes"
ATTRIBUTION = "second-order attribution"
PATCH_ATTRIBUTION = "patch attribution"
BEST = "patch attribution + guided filter"
OWN = (PAPER, "signed votes", "weighted votes", ATTRIBUTION, PATCH_ATTRIBUTION, BEST)
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
# For ResNets (2509.19943, section 4): the paper's own, and what it is compared with.
PAIRS = "neuron-head pairs"
RESNET = (PAIRS, "MaskCLIP", "attention", "GradCAM")
# These do not look at the text.
CLASS_AGNOSTIC = ("raw attention", "rollout")


def method_names(kind: str) -> tuple[str, ...]:
    """Methods for a model of kind "vit" or "resnet"; the best first."""
    # A ResNet's shares are its attention method: the effects it has are all direct.
    own = OWN if kind == "vit" else tuple(name for name in OWN if name != ATTRIBUTION)
    found = own + (PUBLISHED if kind == "vit" else RESNET)
    return (BEST, *(name for name in found if name != BEST))
