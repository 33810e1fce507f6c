"""How a classifier reads images under an edit, and which neurons speak for and against that."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from PIL import Image

from clipneurons.bundle.labels import Label
from tabs.server.session import BundleSession
from tabs.ui.units import says
from tabs.ui.words import untrained

if TYPE_CHECKING:
    from torch import Tensor

    from clipneurons.edit.edit import Edit, UnitFactor, WordFactor
    from clipneurons.edit.preview import Preview

MOST_IMAGES = 8
TEMPLATES = "photo"
_WORDS = 32  # rules of an edit
_SHOWN, _OWN = 6, 24  # units for and against; units of an edit that have a slider each


@dataclass(frozen=True)
class Part:
    """What one slider moves: a unit, all that say a word, or the rest of an edit with a switch."""

    rules: tuple[UnitFactor | WordFactor, ...]
    adds: float  # to the margin of the first image, at factor 1
    says: str
    label: Label | None = None
    map: list[list[float]] | None = None

    @property
    def kind(self) -> str:
        """ "unit", "words" or "rest"."""
        if len(self.rules) != 1:
            return "rest"
        return "words" if hasattr(self.rules[0], "words") else "unit"

    @property
    def strength(self) -> float:
        """How much of the part's change the edit makes: f − 1; of the rest, all."""
        return 1.0 if self.kind == "rest" else self.rules[0].factor - 1


@dataclass(frozen=True, eq=False)
class Reading:
    """Images as a classifier reads them, and an edit in parts; `picture` is the first's number
    in the gallery, where it is from there. `wanted` is what speaks against the top class."""

    bundle: str
    images: tuple[Image.Image, ...]
    picture: int | None
    names: tuple[str, ...]
    top: int
    wanted: int
    edit: Edit
    parts: tuple[Part, ...]
    previews: tuple[Preview, ...]
    pixels: Tensor
    logits: Tensor
    effects: Tensor
    scale: float | None
    never_trained: tuple[str, ...]

    def strengths(self) -> Tensor:
        """Of the parts, as the edit has them."""
        import torch

        return torch.tensor([part.strength for part in self.parts])

    def before(self, image: int = 0) -> list[float]:
        """Probabilities of the classes (cosines, of a model without softmax), unedited."""
        return probabilities(self.previews[image].cosines(0 * self.strengths()), self.scale)

    def after(self, image: int = 0) -> list[float]:
        """The same under the edit of the effects."""
        return probabilities(self.previews[image].cosines(self.strengths()), self.scale)


def probabilities(cosines: Tensor, scale: float | None) -> list[float]:
    """Probabilities at the model's temperature, or the cosines where it has none."""
    return (cosines if scale is None else (scale * cosines).softmax(-1)).tolist()


def read(
    session: BundleSession,
    images: list[Image.Image],
    names: list[str],
    wanted: str = "",
    edit: Edit | None = None,
    picture: int | None = None,
) -> Reading:
    """One pass over the images; what speaks for and against the first one's top class.

    Raises `ValueError` for fewer than two names, a wanted class that is none of them, too many
    images, and `EditError` for an edit that does not fit the bundle.
    """
    import torch

    from clipneurons.edit.class_effects import ClassEffects
    from clipneurons.edit.edit import DATA, Edit
    from clipneurons.edit.preview import Preview
    from clipneurons.text.embedding import embed_texts

    if not images:
        raise ValueError("Choose, paste or take a picture first.")
    if len(images) > MOST_IMAGES:
        raise ValueError(f"At most {MOST_IMAGES} pictures at once, please.")
    if len(names) < 2:
        raise ValueError("Write at least two class names, with commas between: cat, dog")
    if wanted and wanted not in names:
        raise ValueError(f"It should be {wanted!r}: expected one of {', '.join(names)}.")
    bundle = session.bundle
    # Of the images that an edit was found on, nothing is known here.
    edit = replace(edit or Edit(bundle.config.weights_sha256), means=DATA)
    if len(edit.words) > _WORDS:
        raise ValueError(f"An edit of {len(edit.words)} words: at most {_WORDS} are read here.")
    edit.factors(bundle)  # says what does not fit, before the model runs
    texts = embed_texts(session.clip, names, TEMPLATES)
    pixels = torch.stack([session.clip.preprocess(image) for image in images])
    embeddings, effects, contributions = ClassEffects(bundle, session.lens, texts)(
        pixels.to(session.clip.device)
    )
    texts = texts.cpu()
    logits = embeddings[0] @ texts.T
    first, second = logits.topk(2).indices.tolist()
    other = names.index(wanted) if wanted and names.index(wanted) != first else second
    toward = texts[first] - texts[other]
    margin = effects[0, :, first] - effects[0, :, other]
    parts, vectors = _parts(session, edit, contributions, margin, toward, len(images))
    previews = tuple(
        Preview.of(embedding, rows, texts)
        for embedding, rows in zip(embeddings, vectors, strict=True)
    )
    return Reading(
        session.key, tuple(images), picture, tuple(names), first, other, edit, tuple(parts),
        previews, pixels, logits, effects[0], session.clip.logit_scale,
        tuple(untrained(session, names)),
    )  # fmt: skip


def _parts(
    session: BundleSession, edit: Edit, contributions: dict, margin: Tensor, toward: Tensor,
    images: int,
) -> tuple[list[Part], list[Tensor]]:  # fmt: skip
    """An edit's parts and the strongest units beside it, and by image what each part changes."""
    import torch

    from clipneurons.edit.edit import UnitFactor
    from clipneurons.edit.preview import weighted_effects

    bundle, dictionary = session.bundle, session.dictionary
    rows, free = list(edit.units), torch.ones(len(margin), dtype=torch.bool)
    free[[dictionary.row(one.layer, one.unit) for one in rows]] = False
    groups: list[tuple[tuple, Tensor]] = []
    for rule in reversed(edit.words):  # a unit belongs to the last rule that names it
        said = _said_by(dictionary, rule) & free
        groups.insert(0, ((rule,), said.float()))
        free &= ~said
    if len(rows) > _OWN:
        weights = torch.zeros(len(margin))
        for one in rows[_OWN:]:
            weights[dictionary.row(one.layer, one.unit)] = one.factor - 1
        groups.append((tuple(rows[_OWN:]), weights))
    order = margin.masked_fill(~free, 0)
    shown = [*order.topk(min(_SHOWN, len(order))).indices.tolist()]
    shown += [*(-order).topk(min(_SHOWN, len(order))).indices.tolist()]
    new = [UnitFactor(*dictionary.place(row), 1.0) for row in dict.fromkeys(shown) if free[row]]
    for one in (*rows[:_OWN], *new):
        weights = torch.zeros(len(margin))
        weights[dictionary.row(one.layer, one.unit)] = 1.0
        groups.append(((one,), weights))
    counts = [dictionary.units(layer) for layer in dictionary.layers]
    means = {layer: arrays.means for layer, arrays in bundle.layers.items()}
    parts, vectors = [], [[] for _ in range(images)]
    for rules, weights in groups:
        by_layer = dict(zip(dictionary.layers, weights.split(counts), strict=True))
        for image, mine in enumerate(vectors):
            mine.append(weighted_effects(contributions, means, by_layer, image))
        parts.append(
            _part(session, rules, float(weights @ margin), int((weights != 0).sum()),
                  contributions, toward)
        )  # fmt: skip
    embed = bundle.config.embed_dim
    return parts, [torch.stack(v) if v else torch.zeros(0, embed) for v in vectors]


def _said_by(dictionary, rule: WordFactor) -> Tensor:
    from clipneurons.dictionary.dictionary import Phrase

    return dictionary.coefficient_scores([Phrase(rule.words)]) > rule.more_than


def _part(
    session: BundleSession, rules: tuple, adds: float, count: int, contributions: dict,
    toward: Tensor,
) -> Part:  # fmt: skip
    from clipneurons.edit.preview import patch_attributions

    rule = rules[0]
    if len(rules) > 1:
        return Part(rules, adds, f"{len(rules)} more neurons of the edit")
    if hasattr(rule, "words"):
        words = f"all {count} neurons that say “{rule.words}” with more than {rule.more_than:g}"
        return Part(rules, adds, words)
    label = session.bundle.label(rule.layer, rule.unit)
    shares = patch_attributions(contributions[rule.layer], rule.unit, toward)
    found = None
    if shares is not None:
        positive = (shares * math.copysign(1, adds)).clamp_min(0)
        positive = (positive / positive.max().clamp_min(1e-12)).unflatten(0, session.clip.grid)
        found = [[round(value, 3) for value in row] for row in positive.tolist()]
    name = says(session.bundle, rule.layer, rule.unit)
    return Part(rules, adds, name, label, found)
