"""Names of the ways to segment, and which models they read, known without loading any."""

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
    "NACLIP",
    "ResCLIP",
    "LeGrad",
)
# For ResNets (2509.19943, section 4): the paper's own, and what it is compared with.
PAIRS = "neuron-head pairs"
RESNET = (PAIRS, "MaskCLIP", "attention", "GradCAM")
# These follow gradients or relevance to the one token that is read: a class token's.
CLASS_TOKEN = ("Partial-LRP", "LRP", "GradCAM", "Chefer 2021", "LeGrad")
# And these rules of relevance are for plain MLPs and attention, neither gated nor rotated.
RELEVANCE = ("Partial-LRP", "LRP", "Chefer 2021")
# These do not look at the text.
CLASS_AGNOSTIC = ("raw attention", "rollout")


def method_names(kind: str, pooling: str = "token") -> tuple[str, ...]:
    """Methods for a model of kind "vit" or "resnet" that pools so; the best first."""
    # A ResNet's shares are its attention method: the effects it has are all direct.
    own = OWN if kind == "vit" else tuple(name for name in OWN if name != ATTRIBUTION)
    found = own + (PUBLISHED if kind == "vit" else RESNET)
    if kind == "vit" and pooling != "token":
        found = tuple(name for name in found if name not in CLASS_TOKEN)
    return (BEST, *(name for name in found if name != BEST))


def why_not(name: str, pooling: str, plain: bool) -> str | None:
    """Why a method cannot read a ViT that pools so, or None where it can.

    ``plain``: its blocks are those of the first CLIP.
    """
    if name in CLASS_TOKEN and pooling != "token":
        return f"{name} follows the score to a class token's attention, this model reads none"
    if name in RELEVANCE and not plain:
        return f"{name} has no rule for gated neurons, rotary positions and further norms"
    return None
