"""What a training may vary, and what made the towers."""

from dataclasses import dataclass

# The style of pictograms that no training sees, on which recipes are chosen.
VALIDATION_STYLE = "fxemoji"


@dataclass(frozen=True)
class Recipe:
    """What may be varied; kept beside the checkpoint. Shares are of the whole training."""

    stage: str
    minutes: float = 280.0
    batch: int = 128
    muon: float = 0.01
    adam: float = 2e-3
    scenes: float = 0.4  # of a batch; the rest are photographs, where there are any
    small: float = 0.83  # until then images of half the side
    few: float = 0.93  # until then, and after `small`, half the patches; a ResNet: 3/4 of the side
    listens: int = 6  # block of a ViT from which its class token may attend freely
    penalty: float = 10.0  # on what the class token does before, and besides, listening
    bypass: float = 20.0  # on what it hears besides the later half's MLPs
    pairs: float = 0.2  # weight of the contrast between images and captions
    cool: float = 0.72  # from then on the rate goes to zero
    seed: int = 0
    steps: int = 0  # instead of minutes, when reproducibility matters


RECIPES = {
    "text": Recipe("text", minutes=30, batch=256, muon=0.02),
    "vit": Recipe("vit"),
    "rn": Recipe("rn"),
}
