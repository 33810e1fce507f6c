"""What is compared of an image: its embedding, its units, its places and its pixels.

Units are read as in 2509.19943, section 5: each unit's effect, projected on its direction.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from clipneurons.bundle.bundle import Bundle
from clipneurons.images.windows import square_windows
from clipneurons.shift.pixels import measure_pixels
from clipneurons.shift.places import PlaceReader


@dataclass(frozen=True)
class Profile:
    """What is compared of some images.

    Attributes:
        embeddings: of unit norm.
        units: the projection of each unit's effect on its direction.
        places: the effects of all units by place (`PlaceReader`).
        pixels: low-level properties (`measure_pixels`); no columns where the images were given
            preprocessed.
    """

    embeddings: Float[Tensor, "image embed"]
    units: Float[Tensor, "image unit"]
    places: Float[Tensor, "image row column feature"]
    pixels: Float[Tensor, "image measure"]

    def __len__(self) -> int:
        return len(self.embeddings)

    def __getitem__(self, images) -> "Profile":
        return Profile(*(values[images] for values in vars(self).values()))

    @staticmethod
    def cat(parts: Sequence["Profile"]) -> "Profile":
        """Profiles of more images, in order."""
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return Profile(*map(torch.cat, columns))


@dataclass(frozen=True)
class PreparedImage:
    """An image as a `Profiler` reads it: preprocessed squares that cover it, and its pixels'
    properties."""

    windows: Float[Tensor, "window 3 height width"]
    pixels: Float[Tensor, " measure"]


class Profiler:
    """Profiles of images by the units of a bundle, of either kind of model.

    ``names[i]`` is the (layer, unit) of column i of a profile's units.
    """

    def __init__(self, lens: Callable, bundle: Bundle) -> None:
        self.lens, self.bundle = lens, bundle
        self._places = PlaceReader(lens.clip.grid, lens.clip.embed_dim)
        self._along, self.names = {}, []
        for layer, arrays in bundle.layers.items():
            device = next(iter(lens.directions.values())).device
            # ⟨direction of each head, r_n⟩: with it an image costs a sum over heads.
            self._along[layer] = lens.directions[layer].along(arrays.directions.to(device))
            self.names += [(layer, unit) for unit in range(len(arrays.directions))]

    def __call__(self, images: Float[Tensor, "image 3 height width"]) -> Profile:
        """The profile of a batch of preprocessed images."""
        representation, contributions = self.lens(images)
        units = [
            torch.einsum("bnk,nk->bn", contributions[layer].scores, along)
            for layer, along in self._along.items()
        ]
        embeddings = F.normalize(representation, dim=-1).cpu()
        places = self._places(contributions).cpu()
        return Profile(embeddings, torch.cat(units, 1).cpu(), places, torch.zeros(len(images), 0))

    def of_images(
        self,
        images: Sequence[Image.Image],
        batch: int = 32,
        progress: Callable[[int], object] = lambda _: None,
    ) -> Profile:
        """The profile of whole images of any shape, where `preprocess` keeps the middle square.

        An image that is not square is read in the squares that cover it, and its profile is their
        mean: what stands in a corner is in one of them (`python -m research benchmark shift`).
        ``progress`` is called with the number of images of each batch that has been read.
        """
        parts = []
        for first in range(0, len(images), batch):
            some = images[first : first + batch]
            parts.append(self.of_prepared([self.prepare(image) for image in some], batch))
            progress(len(some))
        return Profile.cat(parts)

    def prepare(self, image: Image.Image) -> PreparedImage:
        """An image ready to be read; many can be prepared at once by threads."""
        windows = [self.lens.clip.preprocess(square) for square in square_windows(image)]
        return PreparedImage(torch.stack(windows), measure_pixels(image))

    def of_prepared(self, images: Sequence[PreparedImage], batch: int = 32) -> Profile:
        """The profile of prepared images, ``batch`` windows at a time."""
        windows = torch.cat([image.windows for image in images])
        read = [self(windows[at : at + batch]) for at in range(0, len(windows), batch)]
        mean = _mean_by_image(Profile.cat(read), [len(image.windows) for image in images])
        pixels = torch.stack([image.pixels for image in images])
        return Profile(mean.embeddings, mean.units, mean.places, pixels)


def _mean_by_image(windows: Profile, counts: list[int]) -> Profile:
    """Means over the windows of each image, ``counts`` of each in order; one stays as it is."""
    if len(windows) == len(counts):
        return windows

    def means(values: Float[Tensor, "window *rest value"]) -> Float[Tensor, "image *rest value"]:
        return torch.stack([part.mean(0) for part in values.split(counts)])

    embeddings = F.normalize(means(windows.embeddings), dim=-1)
    return Profile(embeddings, means(windows.units), means(windows.places), means(windows.pixels))
