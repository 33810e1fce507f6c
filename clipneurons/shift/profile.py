"""What every unit of a bundle says of an image (2509.19943, section 5).

An image's :class:`Profile` is each unit's effect, projected on the unit's direction, and what all
of them write from each place of the image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from clipneurons.bundle.bundle import Bundle
from clipneurons.images.square_windows import square_windows
from clipneurons.shift.places import PlaceReader


@dataclass(frozen=True)
class Profile:
    """Unit-norm embeddings of images, the projection of each unit's effect on its direction, the
    sum of units times directions (the part of the embedding they reconstruct), and what the units
    write from each place (`PlaceReader`)."""

    embeddings: Float[Tensor, "image embed"]
    units: Float[Tensor, "image unit"]
    reconstruction: Float[Tensor, "image embed"]
    places: Float[Tensor, "image place feature"]

    def __len__(self) -> int:
        return len(self.embeddings)

    def __getitem__(self, images) -> "Profile":
        return Profile(*(values[images] for values in vars(self).values()))

    @staticmethod
    def cat(parts: Sequence["Profile"]) -> "Profile":
        """Profiles of more images, in order."""
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return Profile(*map(torch.cat, columns))


class Profiler:
    """Profiles of images by the units of a bundle, of either kind of model.

    ``names[i]`` is the (layer, unit) of column i of a profile's units.
    """

    def __init__(self, lens: Callable, bundle: Bundle) -> None:
        self.lens = lens
        self._places = PlaceReader(lens.clip.grid, lens.clip.embed_dim)
        self.directions, self._along = {}, {}
        for layer, arrays in bundle.layers.items():
            device = next(iter(lens.directions.values())).device
            rows = arrays.directions.to(device)
            self.directions[layer] = rows
            # ⟨direction of each head, r_n⟩: with it an image costs a sum over heads.
            self._along[layer] = lens.directions[layer].along(rows)
        self.names = [
            (layer, u) for layer, rows in self.directions.items() for u in range(len(rows))
        ]

    def __call__(self, images: Float[Tensor, "image 3 height width"]) -> Profile:
        """The profile of a batch of preprocessed images."""
        representation, contributions = self.lens(images)
        units, said = [], 0.0
        for layer, rows in self.directions.items():
            mine = torch.einsum("bnk,nk->bn", contributions[layer].scores, self._along[layer])
            units.append(mine)
            said = said + mine @ rows
        embeddings = F.normalize(representation, dim=-1)
        places = self._places(contributions)
        return Profile(embeddings.cpu(), torch.cat(units, 1).cpu(), said.cpu(), places.cpu())

    def of_pictures(
        self,
        pictures: Sequence[Image.Image],
        batch: int = 32,
        progress: Callable[[int], object] = lambda _: None,
    ) -> Profile:
        """The profile of whole pictures of any shape, where `preprocess` keeps the middle square.

        A picture that is not square is read in the squares that cover it, and its profile is their
        mean: what stands in a corner is in one of them (`python -m research benchmark shift`).
        """
        parts = []
        for first in range(0, len(pictures), batch):
            some = pictures[first : first + batch]
            parts.append(self.of_windows([self.windows(picture) for picture in some], batch))
            progress(len(some))
        return Profile.cat(parts)

    def windows(self, picture: Image.Image) -> Float[Tensor, "window 3 height width"]:
        """The squares that cover a picture, preprocessed."""
        return torch.stack([self.lens.clip.preprocess(one) for one in square_windows(picture)])

    def of_windows(
        self, pictures: Sequence[Float[Tensor, "_ 3 height width"]], batch: int = 32
    ) -> Profile:
        """The profile of pictures given by their `windows`, ``batch`` of which are read at once."""
        pixels = torch.cat(list(pictures))
        read = [self(pixels[at : at + batch]) for at in range(0, len(pixels), batch)]
        return mean_by_picture(Profile.cat(read), [len(windows) for windows in pictures])


def mean_by_picture(windows: Profile, counts: Sequence[int]) -> Profile:
    """Means over the windows of each picture, ``counts`` of each in order; one stays as it is."""
    if len(windows) == len(counts):
        return windows

    def means(values: Float[Tensor, "window *rest value"]) -> Float[Tensor, "picture *rest value"]:
        return torch.stack([part.mean(0) for part in values.split(list(counts))])

    embeddings = F.normalize(means(windows.embeddings), dim=-1)
    rest = (windows.units, windows.reconstruction, windows.places)
    return Profile(embeddings, *map(means, rest))
