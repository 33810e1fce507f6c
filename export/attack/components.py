"""What an attack works with: the model, the painter and the others, loaded before it begins."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from clipneurons.adversarial.attack import Check, unchecked
from clipneurons.adversarial.cue_filter import CueFilter
from clipneurons.adversarial.cue_recorder import record_cues
from clipneurons.adversarial.cue_request import CueRequest
from clipneurons.adversarial.cues import Cues, chosen_layers, find_cues
from clipneurons.adversarial.descriptions import Describer, TemplateDescriber
from clipneurons.adversarial.image_generator import ImageGenerator
from clipneurons.adversarial.methods import INDIRECT, RANDOM_NEURONS, RANDOM_WORDS, RECORDED
from clipneurons.adversarial.photograph_generator import photograph_composer
from clipneurons.adversarial.pictogram_generator import Composer, pictogram_composer
from clipneurons.adversarial.zero_shot import SecondOpinion
from clipneurons.bundle import cue_recordings
from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.cue_recordings import CueRecordings
from clipneurons.lens.make import make_lens
from clipneurons.models.clip import ClipModel
from clipneurons.text.class_names import Similarity
from clipneurons.text.similarity import ClipSimilarity, SentenceSimilarity, best_similarity
from export.attack.options import COMPOSER, PHOTOGRAPHS, TEMPLATES, AttackOptions
from export.attack.results import AttackFolder, Cell
from export.common.errors import UserError
from export.common.models import open_clip_model
from export.pipeline.update_bundle import open_bundle


@dataclass(frozen=True)
class Components:
    """Everything that is loaded once."""

    bundle: Bundle
    clip: ClipModel
    similarity: Similarity | None
    describer: Describer
    painter: ImageGenerator
    transfer: Mapping[str, ClipModel]
    opinion: ClipModel | None

    def check(self, true_class: str, target_class: str) -> Check:
        """What is known about a picture's objects."""
        if isinstance(self.painter, Composer):
            return lambda paintings: [
                self.painter.check(painting, true_class, target_class) for painting in paintings
            ]
        if self.opinion is None:
            return unchecked
        opinion = SecondOpinion(self.opinion, true_class, target_class)
        return lambda paintings: opinion([painting.image for painting in paintings])

    @property
    def draws_cues(self) -> bool:
        """Whether the painter says which phrases of the bundle it can draw, and can some."""
        painter = self.painter
        return isinstance(painter, Composer) and any(map(painter.concept, self.bundle.texts))

    def rules(self, target_class: str, blocked: tuple[str, ...]) -> CueFilter:
        """The same for every method; with the composer only phrases that can be drawn."""
        drawable = None
        if isinstance(self.painter, Composer):
            drawable = self.painter.drawable(target_class)
        return CueFilter(self.similarity, blocked, drawable)


def open_components(options: AttackOptions) -> Components:
    """Load what is needed, the likeliest to be missing first: before minutes are spent."""
    device = options.device
    bundle, clip = open_bundle(options.bundle, device)
    side = options.size or max(clip.image_size)
    if options.painter == COMPOSER:
        painter: ImageGenerator = _composer(side, options.pack, options.heldout)
    elif options.painter == PHOTOGRAPHS:
        painter = photograph_composer(side, options.heldout)
    else:
        from clipneurons.adversarial.image_generator import DiffusersGenerator

        painter = DiffusersGenerator(
            options.painter, device=device, steps=options.steps, guidance=options.guidance,
            size=options.size, offload=options.offload,
        )  # fmt: skip
    similarity = _similarity(options.similarity, clip, bundle)
    if options.describer == TEMPLATES:
        describer: Describer = TemplateDescriber(options.cues_each)
    else:
        from clipneurons.adversarial.chat import ChatDescriber

        describer = ChatDescriber(options.describer, device=device, similarity=similarity)
    return Components(
        bundle=bundle,
        clip=clip,
        similarity=similarity,
        describer=describer,
        painter=painter,
        transfer={name: _other_clip(name, device) for name in options.transfer},
        opinion=_other_clip(options.second_opinion, device) if options.second_opinion else None,
    )


def _composer(side: int, pack: str | None, heldout: bool) -> Composer:
    try:
        return pictogram_composer(side, pack, heldout)
    except (SafetensorError, KeyError) as error:
        raise UserError(f"--pack {pack} is no pack of pictograms: {error}") from None


def _other_clip(name: str, device: str | None) -> ClipModel:
    """A folder, `hf-hub:owner/name`, or an open_clip name and tag with a colon between them."""
    if Path(name).is_dir() or name.startswith("hf-hub:"):
        return open_clip_model(name, device=device)
    model, _, tag = name.partition(":")
    return open_clip_model(model, tag or None, device)


def _similarity(choice: str, clip: ClipModel, bundle: Bundle) -> Similarity | None:
    if choice == "none":
        return None
    if choice == "sentence":
        return SentenceSimilarity()
    if choice == "clip":
        return ClipSimilarity(clip, bundle.text_embeddings)
    return best_similarity(clip, bundle.text_embeddings)


def all_cues(
    options: AttackOptions,
    components: Components,
    folder: AttackFolder,
    cells: Sequence[Cell],
    blocked: tuple[str, ...],
) -> dict[Cell, Cues]:
    """The cues of every cell: whatever is wrong with a name or layer shows before any picture."""
    bundle = components.bundle
    layers = chosen_layers(bundle, _layers(options.layers))
    found: dict[tuple, Cues] = {}
    decompositions: dict = {}

    def cues_of(cell: Cell) -> Cues:
        # Only the random methods depend on the seed.
        seed = cell.seed if cell.method in (RANDOM_NEURONS, RANDOM_WORDS) else 0
        key = (cell.pair, cell.method, seed)
        if key not in found:
            request = CueRequest(
                *cell.pair, layers, options.neurons, options.words, cell.method,
                components.rules(cell.pair[1], blocked), seed=seed,
                decompositions=decompositions if cell.method == INDIRECT else None,
            )  # fmt: skip
            found[key] = find_cues(bundle, components.clip, request)
        return found[key]

    # The indirect effects and the recordings take a minute: a mistake in a name shows before.
    for cell in cells:
        if cell.method not in (INDIRECT, *RECORDED):
            cues_of(cell)
    if any(cell.method == INDIRECT for cell in cells):
        decompositions.update(_indirect(options, components, folder, layers))
    if any(cell.method in RECORDED for cell in cells):
        bundle = replace(bundle, cues=_recordings(components, folder))
    return {cell: cues_of(cell) for cell in cells}


def _indirect(options: AttackOptions, components: Components, folder: AttackFolder, layers) -> dict:
    """The indirect-effect reading of the model, computed once for a folder."""
    from clipneurons.statistics.indirect_decomposition import (
        IndirectDecomposition,
        indirect_decompositions,
    )

    names = tuple(IndirectDecomposition.__dataclass_fields__)
    file = folder.folder / "indirect.safetensors"
    if not file.exists():
        found = indirect_decompositions(
            components.clip, _images(options.data, components.clip), layers,
            components.bundle.text_embeddings, components.bundle.config.components,
            progress=lambda share: progress(f"indirect effects {100 * share:.0f} %"),
        )  # fmt: skip
        tensors = {f"layer{n}.{x}": getattr(found[n], x) for n in layers for x in names}
        _save(folder, file, save({name: value.contiguous() for name, value in tensors.items()}))
    tensors = load_file(file)
    return {
        layer: IndirectDecomposition(*(tensors[f"layer{layer}.{name}"] for name in names))
        for layer in layers
    }


def _recordings(components: Components, folder: AttackFolder) -> CueRecordings:
    """What the model does in pictures of the cues, painted once for a folder.

    Raises:
        UserError: the painter draws none of the bundle's phrases, or does not say which.
    """
    painter, bundle, clip = components.painter, components.bundle, components.clip
    if not components.draws_cues:
        raise UserError(
            f"the methods {' and '.join(RECORDED)} need pictures of the bundle's phrases: use the "
            f"painter {COMPOSER} or {PHOTOGRAPHS} and a bundle whose phrases it can draw"
        )
    file = folder.folder / "recordings.safetensors"
    if not file.exists():
        lens = make_lens(clip, bundle.config.layers)
        found = record_cues(
            bundle, lens, painter, painter.concept, painter.concepts,
            progress=lambda share: progress(f"pictures of cues {100 * share:.0f} %"),
        )  # fmt: skip
        _save(folder, file, cue_recordings.to_bytes(found, bundle.config.schema_version))
    return cue_recordings.from_tensors(load_file(file), tuple(bundle.layers))


def _save(folder: AttackFolder, file: Path, content: bytes) -> None:
    """A file that is either whole or not there."""
    folder.begin()
    part = file.with_suffix(".part")
    part.write_bytes(content)
    part.replace(file)


def _images(spec: str, clip: ClipModel) -> torch.Tensor:
    from export.data.loader import batches
    from export.data.open_source import open_source

    source = open_source(spec, limit=1024, image_size=max(clip.image_size))
    numbers = range(-(-len(source) // 64))
    found = [b.images for b in batches(source, clip.preprocess, numbers, 64)]
    found = [images for images in found if images is not None]
    if not found:
        raise UserError(f"--data {spec}: none of its images can be read")
    return torch.cat(found)


def _layers(text: str | None) -> list[int] | None:
    try:
        return [int(part) for part in (text or "").split(",") if part.strip()] or None
    except ValueError:
        raise UserError(f"--layers {text!r}: expected whole numbers, such as 2,3") from None


def progress(text: str) -> None:
    """One line that is written over, on a terminal; nothing elsewhere."""
    if sys.stderr.isatty():
        print(f"\r{text:<78}", end="", file=sys.stderr, flush=True)
