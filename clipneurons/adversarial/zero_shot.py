"""Zero-shot verdicts: is an image read as the class that it does not show?"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from clipneurons.adversarial.cues import CLASS_TEMPLATES
from clipneurons.adversarial.image_generator import MISSING, PRESENT, TARGET_SHOWN
from clipneurons.lens.lens import Lens
from clipneurons.lens.token_contributions import additive_maps
from clipneurons.models.clip import ClipModel
from clipneurons.text.embedding import embed_texts

NEUTRAL = ("a picture of an empty room", "a plain background", "a blurry picture")


@dataclass(frozen=True)
class Verdicts:
    """Zero-shot reading of a batch of images among some classes.

    ``margin`` is the cosine with the target class minus that with the true one: positive means
    fooled.
    """

    classes: tuple[str, ...]
    cosines: Float[Tensor, "image class"]
    margin: Float[Tensor, " image"]

    @property
    def fooled(self) -> Bool[Tensor, " image"]:
        """Whether the image is read as the target class rather than the true one."""
        return self.margin > 0

    @property
    def predicted(self) -> list[str]:
        """The class of each image that is nearest among all classes."""
        return [self.classes[index] for index in self.cosines.argmax(-1).tolist()]


class ZeroShotClassifier:
    """A CLIP that reads images as the true class, the target class or one of ``others``."""

    def __init__(
        self,
        clip: ClipModel,
        true_class: str,
        target_class: str,
        others: Sequence[str] = (),
        templates: Sequence[str] = CLASS_TEMPLATES,
    ):
        self.clip = clip
        self.classes = tuple(dict.fromkeys((true_class, target_class, *others)))
        self.texts = embed_texts(clip, self.classes, templates)

    @property
    def difference(self) -> Float[Tensor, " embed"]:
        """M_text(target) − M_text(true)."""
        return self.texts[1] - self.texts[0]

    def __call__(self, images: Sequence[Image.Image]) -> Verdicts:
        """Verdicts on a batch of images."""
        batch = torch.stack([self.clip.preprocess(image.convert("RGB")) for image in images])
        embedded = torch.nn.functional.normalize(self.clip.encode_image(batch), dim=-1)
        cosines = embedded @ self.texts.T
        return Verdicts(
            classes=self.classes,
            cosines=cosines.cpu(),
            margin=(cosines[:, 1] - cosines[:, 0]).cpu(),
        )


class SecondOpinion:
    """Another CLIP that says whether a generated image shows the true class and not the target.

    A class counts as shown when the model prefers it to every neutral text. That is weaker than
    looking: another CLIP can be fooled in the same way.
    """

    def __init__(
        self,
        clip: ClipModel,
        true_class: str,
        target_class: str,
        neutral: Sequence[str] = NEUTRAL,
    ):
        self._clip = clip
        classes = embed_texts(clip, (true_class, target_class), CLASS_TEMPLATES)
        self._texts = torch.cat([classes, embed_texts(clip, neutral)])

    def __call__(self, images: Sequence[Image.Image]) -> list[str]:
        """For each image ``PRESENT``, ``MISSING`` or ``TARGET_SHOWN``."""
        batch = torch.stack([self._clip.preprocess(image.convert("RGB")) for image in images])
        embedded = torch.nn.functional.normalize(self._clip.encode_image(batch), dim=-1)
        cosines = embedded @ self._texts.T
        neutral = cosines[:, 2:].max(-1).values
        verdicts = []
        for true, fooled, nothing in zip(cosines[:, 0], cosines[:, 1], neutral, strict=True):
            if true <= nothing:
                verdicts.append(MISSING)
            else:
                verdicts.append(TARGET_SHOWN if fooled > true else PRESENT)
        return verdicts


@torch.no_grad()
def mistake_maps(
    lens: Lens, images: Sequence[Image.Image], difference: Float[Tensor, " embed"]
) -> Float[Tensor, "image row column"]:
    """Each patch's share of what the lens's neurons write along ``difference``.

    Positive patches speak for the target class. With the class token's share, which is left out,
    they add up to ``⟨Σ_n φ_n, difference⟩`` over the lens's layers (see `additive_maps`).
    """
    clip = lens.clip
    batch = torch.stack([clip.preprocess(image.convert("RGB")) for image in images])
    _, contributions = lens(batch.to(clip.device))
    shares = additive_maps(contributions, difference[None].to(clip.device))
    return shares[:, 0, clip.prefix :].unflatten(-1, clip.grid).cpu()
