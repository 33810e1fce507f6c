"""Images from descriptions: what a generator is, and any text-to-image model of diffusers."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from PIL import Image

from clipneurons.adversarial.descriptions import Description
from clipneurons.extras import extra

# Fast; its licence allows research and non-commercial use. Draws unless another is named.
IMAGE_GENERATOR = "stabilityai/sd-turbo"
# (steps, guidance) of models that were distilled to few steps; others use their own default.
SETTINGS = {
    "stabilityai/sd-turbo": (1, 0.0),
    "stabilityai/sdxl-turbo": (1, 0.0),
    "black-forest-labs/FLUX.1-schnell": (4, 0.0),
    "Tongyi-MAI/Z-Image-Turbo": (9, 0.0),
}

# What a check of an image's objects says.
PRESENT, MISSING, TARGET_SHOWN = "as wanted", "true object missing", "target object shown"
UNCHECKED = "unchecked"


@dataclass(frozen=True)
class GeneratedImage:
    """An image, what it was drawn from, and its objects where they are known exactly.

    ``seed`` is the generator's seed of this image; ``objects`` are names, or None.
    """

    image: Image.Image
    description: Description
    seed: int
    objects: tuple[str, ...] | None = None


@runtime_checkable
class ImageGenerator(Protocol):
    """Draws descriptions one after the other; the same seeds give the same images."""

    def __call__(
        self, true_class: str, descriptions: Sequence[Description], seeds: Sequence[int]
    ) -> Iterator[GeneratedImage]:
        """One image a description, in order, each from its own seed."""


class ImageGeneratorError(ValueError):
    """The generator cannot be had or cannot draw; the message says what to change."""


class Cancelled(Exception):
    """The user asked to stop."""


def image_seeds(count: int, seed: int) -> list[int]:
    """A seed for each image, so that any of them can be drawn again alone."""
    rng = random.Random(seed)
    return [rng.getrandbits(31) for _ in range(count)]


class DiffusersGenerator:
    """Draws with `AutoPipelineForText2Image`: half precision on CUDA, float32 on the CPU.

    Args:
        model: id on the Hub or a folder.
        device: by default CUDA where there is one.
        steps: denoising steps; by default what the model was distilled to, or its own default.
        guidance: classifier-free guidance; as ``steps``.
        size: side of the image in pixels; by default the model's own.
        offload: keep on the GPU only the part that works, for models larger than its memory.
        progress: called with the share of the current image's steps that are done.
        cancelled: asked after every step; true stops with `Cancelled`.

    The model's own safety checker, where its repository has one, stays in place.

    Raises:
        ImageGeneratorError: no such model, or CUDA was asked for and there is none.
    """

    def __init__(
        self,
        model: str = IMAGE_GENERATOR,
        *,
        device: str | torch.device | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        size: int | None = None,
        offload: bool = False,
        progress: Callable[[float], object] = lambda _share: None,
        cancelled: Callable[[], bool] = lambda: False,
    ):
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ImageGeneratorError(
                f"{model} was asked to run on {device}, but there is no CUDA device: leave the "
                "device out to draw on the CPU (minutes an image), or use the offline composer"
            )
        with extra("attack"):
            from diffusers import AutoPipelineForText2Image

        try:
            self.pipeline = AutoPipelineForText2Image.from_pretrained(
                model, dtype=torch.float16 if device.type == "cuda" else torch.float32
            )
        except (OSError, ValueError) as error:
            line = (str(error).strip().splitlines() or [""])[0][:200]
            raise ImageGeneratorError(
                f"the image generator {model!r} could not be loaded ({line}). Expected a folder or "
                "an id on the Hub that is reachable or cached; the offline composer needs no model"
            ) from error
        self.pipeline.set_progress_bar_config(disable=True)
        if offload and device.type == "cuda":
            self.pipeline.enable_model_cpu_offload(device=device)
        else:
            self.pipeline.to(device)
        known_steps, known_guidance = SETTINGS.get(model, (None, None))
        self.options = {
            "num_inference_steps": steps if steps is not None else known_steps,
            "guidance_scale": guidance if guidance is not None else known_guidance,
            "height": size,
            "width": size,
        }
        self.options = {name: value for name, value in self.options.items() if value is not None}
        self._progress, self._cancelled = progress, cancelled

    def __call__(
        self, true_class: str, descriptions: Sequence[Description], seeds: Sequence[int]
    ) -> Iterator[GeneratedImage]:
        """One image a description; raises `ImageGeneratorError` when memory runs out."""
        for description, image_seed in zip(descriptions, seeds, strict=True):
            yield GeneratedImage(self._draw(description.text, image_seed), description, image_seed)

    def _draw(self, prompt: str, seed: int) -> Image.Image:
        def after_step(pipeline, step: int, _timestep, tensors: dict) -> dict:
            self._progress((step + 1) / max(1, pipeline.num_timesteps))
            if self._cancelled():
                raise Cancelled
            return tensors

        try:
            result = self.pipeline(
                prompt,
                # On the CPU the same seed gives the same noise whatever the device.
                generator=torch.Generator("cpu").manual_seed(seed),
                callback_on_step_end=after_step,
                **self.options,
            )
        except torch.OutOfMemoryError as error:
            raise ImageGeneratorError(
                "the GPU's memory is full: use --offload, a smaller --size or a smaller generator"
            ) from error
        return result.images[0].convert("RGB")
