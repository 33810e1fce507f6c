"""Pictures from descriptions by any text-to-image model of diffusers."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from PIL import Image

from clipneurons.adversarial.default_models import IMAGE_GENERATOR
from clipneurons.adversarial.descriptions import Description
from clipneurons.extras import extra

# (steps, guidance) of models that were distilled to few steps; others use their own default.
SETTINGS = {
    "stabilityai/sd-turbo": (1, 0.0),
    "stabilityai/sdxl-turbo": (1, 0.0),
    "black-forest-labs/FLUX.1-schnell": (4, 0.0),
    "Tongyi-MAI/Z-Image-Turbo": (9, 0.0),
}


@dataclass(frozen=True)
class GeneratedImage:
    """A picture, what it was painted from, and its objects where they are known exactly.

    ``seed`` is the painter's seed of this picture; ``objects`` are names, or None.
    """

    image: Image.Image
    description: Description
    seed: int
    objects: tuple[str, ...] | None = None


@runtime_checkable
class ImageGenerator(Protocol):
    """Paints descriptions one after the other; the same seeds give the same pictures."""

    def __call__(
        self, true_class: str, descriptions: Sequence[Description], seeds: Sequence[int]
    ) -> Iterator[GeneratedImage]:
        """One painting a description, in order, each from its own seed."""


class ImageGeneratorError(ValueError):
    """The painter cannot be had or cannot paint; the message says what to change."""


class Cancelled(Exception):
    """The user asked to stop."""


def picture_seeds(count: int, seed: int) -> list[int]:
    """A seed for each picture, so that any of them can be painted again alone."""
    rng = random.Random(seed)
    return [rng.getrandbits(31) for _ in range(count)]


class DiffusersGenerator:
    """Paints with `AutoPipelineForText2Image`: half precision on CUDA, float32 on the CPU.

    Args:
        model: id on the Hub or a folder.
        device: by default CUDA where there is one.
        steps: denoising steps; by default what the model was distilled to, or its own default.
        guidance: classifier-free guidance; as ``steps``.
        size: side of the picture in pixels; by default the model's own.
        offload: keep on the GPU only the part that works, for models larger than its memory.
        progress: called with the share of the current picture's steps that are done.
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
                "device out to paint on the CPU (minutes a picture), or use the offline composer"
            )
        with extra("attack"):
            from diffusers import AutoPipelineForText2Image

        try:
            self._pipeline = AutoPipelineForText2Image.from_pretrained(
                model, dtype=torch.float16 if device.type == "cuda" else torch.float32
            )
        except (OSError, ValueError) as error:
            line = (str(error).strip().splitlines() or [""])[0][:200]
            raise ImageGeneratorError(
                f"the painter {model!r} could not be loaded ({line}). Expected a folder or an id "
                "on the Hub that is reachable or cached; the offline composer needs no model"
            ) from error
        self._pipeline.set_progress_bar_config(disable=True)
        if offload and device.type == "cuda":
            self._pipeline.enable_model_cpu_offload(device=device)
        else:
            self._pipeline.to(device)
        known_steps, known_guidance = SETTINGS.get(model, (None, None))
        self._options = {
            "num_inference_steps": steps if steps is not None else known_steps,
            "guidance_scale": guidance if guidance is not None else known_guidance,
            "height": size,
            "width": size,
        }
        self._options = {name: value for name, value in self._options.items() if value is not None}
        self._progress, self._cancelled = progress, cancelled

    def __call__(
        self, true_class: str, descriptions: Sequence[Description], seeds: Sequence[int]
    ) -> Iterator[GeneratedImage]:
        """One painting a description; raises `ImageGeneratorError` when memory runs out."""
        for description, own_seed in zip(descriptions, seeds, strict=True):
            yield GeneratedImage(self._paint(description.text, own_seed), description, own_seed)

    def _paint(self, prompt: str, seed: int) -> Image.Image:
        def after_step(pipeline, step: int, _timestep, tensors: dict) -> dict:
            self._progress((step + 1) / max(1, pipeline.num_timesteps))
            if self._cancelled():
                raise Cancelled
            return tensors

        try:
            result = self._pipeline(
                prompt,
                # On the CPU the same seed gives the same noise whatever the device.
                generator=torch.Generator("cpu").manual_seed(seed),
                callback_on_step_end=after_step,
                **self._options,
            )
        except torch.OutOfMemoryError as error:
            raise ImageGeneratorError(
                "the GPU's memory is full: use --offload, a smaller --size or a smaller painter"
            ) from error
        return result.images[0].convert("RGB")
