"""What an attack works with: the model, the generator and the others, loaded before it begins."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from clipneurons.adversarial.attack import Check, unchecked
from clipneurons.adversarial.composer import Composer, photograph_composer, pictogram_composer
from clipneurons.adversarial.cue_recorder import record_cues
from clipneurons.adversarial.cue_request import RECORDED, CueFilter, CueRequest
from clipneurons.adversarial.cues import Cues, Scorer, chosen_layers, find_cues
from clipneurons.adversarial.descriptions import Describer, TemplateDescriber
from clipneurons.adversarial.image_generator import ImageGenerator
from clipneurons.adversarial.zero_shot import SecondOpinion
from clipneurons.bundle import cue_recordings
from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.folders import write_atomic
from clipneurons.lens.lens import Lens
from clipneurons.models.clip import ClipModel
from clipneurons.text.class_names import Similarity
from clipneurons.text.similarity import ClipSimilarity, SentenceSimilarity, best_similarity
from export.attack.options import COMPOSER, PHOTOGRAPHS, TEMPLATES, AttackOptions
from export.attack.results import Cell
from export.common.errors import UserError
from export.common.models import open_clip_model
from export.pipeline.update_bundle import open_bundle

# Further methods by name, each a function of the seed: how `research` adds its baselines.
Baselines = Mapping[str, Callable[[int], Scorer]]


@dataclass(frozen=True)
class Components:
    """Everything that is loaded once."""

    bundle: Bundle
    clip: ClipModel
    similarity: Similarity | None
    describer: Describer
    generator: ImageGenerator
    transfer: Mapping[str, ClipModel]
    opinion: ClipModel | None

    def check(self, true_class: str, target_class: str) -> Check:
        """What is known about an image's objects."""
        if isinstance(self.generator, Composer):
            return lambda images: [
                self.generator.check(image, true_class, target_class) for image in images
            ]
        if self.opinion is None:
            return unchecked
        opinion = SecondOpinion(self.opinion, true_class, target_class)
        return lambda images: opinion([image.image for image in images])

    @property
    def draws_cues(self) -> bool:
        """Whether the generator says which texts of the bundle it can draw, and can some."""
        generator = self.generator
        return isinstance(generator, Composer) and any(map(generator.concept, self.bundle.texts))

    def rules(self, target_class: str, blocked: tuple[str, ...]) -> CueFilter:
        """The same for every method; with the composer only texts that can be drawn."""
        drawable = None
        if isinstance(self.generator, Composer):
            drawable = self.generator.drawable(target_class)
        return CueFilter(self.similarity, blocked, drawable)

    def identity(self) -> dict[str, str]:
        """What tells these models and this bundle from others of the same names."""
        config, units = self.bundle.config, hashlib.sha256()
        for arrays in self.bundle.layers.values():
            for tensor in (arrays.directions, arrays.indices, arrays.coefficients):
                units.update(tensor.cpu().contiguous().numpy().tobytes())
        units.update("\n".join(self.bundle.texts).encode())
        others = dict(self.transfer)
        if self.opinion is not None:
            others["second opinion"] = self.opinion
        weights = {name: clip.sha256()[:16] for name, clip in others.items()}
        return {
            "model weights": config.weights_sha256[:16],
            "units": units.hexdigest()[:16],
        } | {f"weights of {name}": digest for name, digest in weights.items()}


def open_components(options: AttackOptions) -> Components:
    """Load what is needed, the likeliest to be missing first: before minutes are spent."""
    device = options.device
    bundle, clip = open_bundle(options.bundle, device)
    side = options.size or max(clip.image_size)
    if options.generator == COMPOSER:
        generator: ImageGenerator = _composer(side, options.pack, options.heldout)
    elif options.generator == PHOTOGRAPHS:
        generator = photograph_composer(side, options.heldout)
    else:
        from clipneurons.adversarial.image_generator import DiffusersGenerator

        generator = DiffusersGenerator(
            options.generator, device=device, steps=options.steps, guidance=options.guidance,
            size=options.size, offload=options.offload,
        )  # fmt: skip
    similarity = _similarity(options.similarity, clip, bundle)
    if options.describer == TEMPLATES:
        describer: Describer = TemplateDescriber(options.cues_per_image)
    else:
        from clipneurons.adversarial.chat import ChatDescriber

        describer = ChatDescriber(options.describer, device=device, similarity=similarity)
    return Components(
        bundle=bundle,
        clip=clip,
        similarity=similarity,
        describer=describer,
        generator=generator,
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


def cues_of_cells(
    options: AttackOptions,
    components: Components,
    cells: Sequence[Cell],
    blocked: tuple[str, ...],
    baselines: Baselines,
) -> dict[Cell, Cues]:
    """The cues of every cell: whatever is wrong with a name or layer shows before any image."""
    bundle = components.bundle
    layers = chosen_layers(bundle, _layers(options.layers))
    by_question: dict[tuple, Cues] = {}

    def cues_of(cell: Cell) -> Cues:
        # The product's own methods know no seed.
        question = (cell.pair, cell.method, cell.seed if cell.method in baselines else 0)
        if question not in by_question:
            request = CueRequest(
                *cell.pair, layers=layers, neurons=options.neurons, count=options.cues,
                method=cell.method, rules=components.rules(cell.pair[1], blocked),
            )  # fmt: skip
            scorer = baselines[cell.method](cell.seed) if cell.method in baselines else None
            by_question[question] = find_cues(bundle, components.clip, request, scorer=scorer)
        return by_question[question]

    return {cell: cues_of(cell) for cell in cells}


def check_recordable(components: Components, methods: Sequence[str]) -> None:
    """Raise `UserError` where cues must be recorded and the generator draws none of the texts."""
    recorded = [method for method in methods if method in RECORDED]
    if recorded and not components.draws_cues:
        raise UserError(
            f"{' and '.join(recorded)} need images of the bundle's texts: use the generator "
            f"{COMPOSER} or {PHOTOGRAPHS} and a bundle whose texts it can draw"
        )


def with_recordings(components: Components, file: Path) -> Components:
    """The same with what the model does in images of the cues, drawn once for a folder."""
    generator, bundle, clip = components.generator, components.bundle, components.clip
    if not file.exists():
        lens = Lens.of_bundle(clip, bundle)
        recordings = record_cues(
            bundle, lens, generator, generator.concept, generator.concepts,
            progress=lambda share: progress(f"images of cues {100 * share:.0f} %"),
        )  # fmt: skip
        schema = bundle.config.schema_version
        write_atomic(file, cue_recordings.to_bytes(recordings, schema))
    recordings = cue_recordings.from_tensors(load_file(file), tuple(bundle.layers))
    return replace(components, bundle=replace(bundle, cues=recordings))


def _layers(text: str | None) -> list[int] | None:
    try:
        return [int(part) for part in (text or "").split(",") if part.strip()] or None
    except ValueError:
        raise UserError(f"--layers {text!r}: expected whole numbers, such as 2,3") from None


def progress(text: str) -> None:
    """One line that is written over, on a terminal; nothing elsewhere."""
    if sys.stderr.isatty():
        print(f"\r{text:<78}", end="", file=sys.stderr, flush=True)
