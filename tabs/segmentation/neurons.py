"""The neurons behind a name, and those that speak at a place of the image."""

from __future__ import annotations

from clipneurons.bundle.unit_words import plain
from tabs.segmentation.found import Found
from tabs.server.session import BundleSession
from tabs.ui import plots
from tabs.ui.neuron_card import unit_bar

_VOTERS = 12


def voters(session: BundleSession, name: str) -> str:
    """The units most aligned with a name, as bars that lead into the dictionary."""
    from clipneurons.segmentation.activation_maps import choose_neurons
    from clipneurons.text.embedding import embed_texts

    bundle = session.bundle
    text = embed_texts(session.clip, [name], "photo").cpu()
    votes = choose_neurons(bundle.directions, text, _VOTERS)
    rows = zip(
        votes.layers[0].tolist(), votes.units[0].tolist(), votes.alignments[0].tolist(),
        strict=True,
    )  # fmt: skip
    bars = [unit_bar(session.key, bundle, *row) for row in rows]
    return plots.section(
        f"Neurons that agree most with “{name}”",
        plots.bars(bars, label=f"Agreement with {name}", wide=True),
        "Cosine of each neuron's direction with the name; the paper's method averages the maps "
        "of the first 200.",
    )


def said_at(found: Found, session: BundleSession, point: tuple[int, int]) -> str:
    """What the neurons say at a pixel of the image, and which neurons."""
    from clipneurons.concepts.patch_concepts import patch_at, patch_concepts
    from clipneurons.models.preprocess import whole

    clip = session.clip
    patch = patch_at(point, found.image.size, clip.grid)
    _, contributions = session.lens(whole(clip, found.image))
    local = patch_concepts(session.bundle, contributions, [patch])
    row, column = divmod(patch, clip.grid[1])
    phrases = plots.bars(
        [plots.Bar(plain(phrase), weight) for phrase, weight in local.phrases],
        label="Phrases the neurons say at this place",
        digits=3,
    )
    units = plots.bars(
        [
            unit_bar(session.key, session.bundle, one.layer, one.unit, one.strength)
            for one in local.units
        ],
        label="Neurons that speak at this place",
        digits=3,
        wide=True,
    )
    place = f"row {row + 1}, column {column + 1} of {clip.grid[0]} × {clip.grid[1]}"
    return plots.section(
        "What the neurons say here", phrases, f"More than elsewhere in the image ({place})."
    ) + plots.folded("Neurons that say so", units)
