"""The model card: `card_template.md` filled in, with the repository's final name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from string import Template

from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.config import BundleConfig
from clipneurons.bundle.labels import EXPLAINS, SPECIFIC
from clipneurons.bundle.unit_words import signed_words
from export.evaluation.self_check import in_words

TEMPLATE = Path(__file__).with_name("card_template.md")


def render_card(
    bundle: Bundle, metrics: Mapping, command: str, repository: str, model_card: str = ""
) -> str:
    """The card of a bundle that will be found under `repository` (a folder or "user/name").

    `model_card` is the text of `MODEL.md`, where the weights have one.
    """
    config = bundle.config
    hub = config.model.removeprefix("hf-hub:") if config.model.startswith("hf-hub:") else ""
    own = config.carries_model
    title = Path(repository).name if own else config.model
    layer, unit = _strongest(bundle)[0]
    counts = [len(bundle.layers[x].directions) for x in config.layers]
    skipped = f", {config.data.skipped:,} unreadable ones left out" if config.data.skipped else ""
    text = Template(TEMPLATE.read_text()).substitute(
        licence="mit",
        base_model=f"base_model: {hub}\n" if hub else "",
        title=f"{title} ({config.pretrained})" if config.pretrained else title,
        units=f"{sum(counts):,}",
        nouns=f"{config.noun}s",
        what=_what(config),
        repository=repository,
        layer=layer,
        unit=unit,
        example=_phrases(bundle, layer, unit, 3),
        model="in this folder" if own else f"{config.model} {config.pretrained or ''}",
        weights=config.weights_sha256[:16],
        width=config.image_size[1],
        height=config.image_size[0],
        activation=config.activation,
        check=in_words(config.self_check) if config.self_check else "not tried",
        layers=", ".join(f"{x} ({n:,} units)" for x, n in zip(config.layers, counts, strict=True)),
        images=f"{config.data.count:,} of {config.data.name}{skipped}; fingerprint"
        f" `{config.data.fingerprint[:16]}`",
        top_k=config.top_k,
        pool=f"{config.pool.count:,}, {config.pool.name}: {config.pool.source}"
        f" ({config.pool.licence}){', centred' if config.centred_pool else ''}",
        components=config.components,
        bias="Each effect includes an equal share of all biases, as in the published code."
        if config.shared_bias
        else "Effects are the units' own; biases are left out.",
        fidelity=_fidelity(metrics.get("fidelity")),
        labels=_labels(metrics.get("labels"), metrics.get("label_comparison")),
        sample=_sample(bundle),
        command=command,
        versions=", ".join(f"{name} {value}" for name, value in sorted(config.versions.items())),
        model_card=f"## The model\n\n{_demoted(model_card)}\n" if model_card else "",
    )
    return text


def _what(config: BundleConfig) -> str:
    """What the units are."""
    note = config.features
    if note is None and config.units_per_neuron > 1:
        return f"{config.unit_nouns} of the last stage"
    if note is None:
        return "MLP neurons"
    return (
        f"{config.unit_nouns} of the dictionary {note.source}, which"
        f" reads {note.site} of block {note.block} in {note.tokens} tokens and explains"
        f" {note.explained_variance:.0%} of its variance with {note.active:.0f} of"
        f" {note.latents:,} features a token; {note.dead:,} are dead, {note.dense:,} dense"
    )


def local_name(folder: Path) -> str:
    """The name by which `load_bundle` finds a folder from here; of one elsewhere its last part,
    since a card says nothing of the machine it was made on."""
    here = Path.cwd()
    whole = folder.resolve()
    return whole.relative_to(here).as_posix() if whole.is_relative_to(here) else whole.name


def _strongest(bundle: Bundle) -> list[tuple[int, int]]:
    """Units whose direction explains most, among those with effects above the layer's median."""
    ranked = []
    for layer, arrays in bundle.layers.items():
        strong = arrays.percentile >= arrays.percentile.median()
        score = arrays.explained_variance.where(strong, arrays.explained_variance * 0)
        best = score.argsort(descending=True, stable=True)[:4].tolist()
        ranked += [(float(score[unit]), layer, unit) for unit in best]
    return [(layer, unit) for _, layer, unit in sorted(ranked, key=lambda r: (-r[0], r[1:]))]


def _sample(bundle: Bundle) -> str:
    rows = [
        "| layer | unit | label | explained variance | decomposition |",
        "|---|---|---|---|---|",
    ]
    for layer, unit in _strongest(bundle)[:12]:
        explained = float(bundle.layers[layer].explained_variance[unit])
        phrases = _phrases(bundle, layer, unit, 5)
        label = ", ".join(signed_words(bundle, layer, unit)) or "–"
        rows.append(f"| {layer} | {unit} | {label} | {explained:.0%} | {phrases} |")
    return "\n".join(rows)


def _phrases(bundle: Bundle, layer: int, unit: int, count: int) -> str:
    return ", ".join(f"{text} {value:+.2f}" for text, value in bundle.phrases(layer, unit, count))


def _fidelity(figures: Mapping | None) -> str:
    if not figures:
        return "Not measured; `python -m export evaluate fidelity --bundle FOLDER` does."
    known = "accuracy" in figures["baseline"]
    choice = f"{figures['classes']:,} classes" if known else "a choice among the bundle's texts"
    if known:
        choice += f", prompts `{figures['templates']}`"
    lines = [
        f"{figures['count']:,} images of {figures['images']}, {choice}; 95 % intervals.",
        "",
    ]
    if known:
        low, high = figures["baseline"]["accuracy_interval"]
        accuracy = figures["baseline"]["accuracy"]
        lines += [f"Unchanged model: {accuracy:.1%} ({low:.1%} to {high:.1%}) accuracy.", ""]
    head = "accuracy | change | " if known else ""
    lines += [
        f"| layer | effects of the layer | {head}same choice as the model | cosine |",
        "|---|---|" + ("---|---|" if known else "") + "---|---|",
    ]
    for place, conditions in figures["layers"].items():
        for name, f in conditions.items():
            cells = [place.removeprefix("layer "), name]
            if known:
                low, high = f["change_interval"]
                cells += [
                    f"{f['accuracy']:.1%}",
                    f"{100 * f['change']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}) points",
                ]
            cells += [f"{f['agreement']:.1%}", f"{f['cosine']:.3f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _labels(found: Mapping | None, others: Mapping | None) -> str:
    """How well labels predict their units, by layer, and beside baselines if compared."""
    if not found:
        return "Not tested; `python -m export evaluate labels --bundle FOLDER` does."
    low, high = found["interval"]
    sure, written, tested = found["reliable"], found["written_on"], found["tested_on"]
    lines = [
        f"A label is at most {found['label_texts']} texts with signed weights. Its simulation score"
        " is the correlation of the unit's effect with what the label predicts from what an image"
        f" shows ({found['judge']}). Labels were written on {written['count']:,} images"
        f" ({written['images']}) and tested on {tested['count']:,} others ({tested['images']}).",
        "",
        f"Mean over {found['units']:,} units: **{found['simulation_score']:.3f}** ({low:.3f} to"
        f" {high:.3f}). Reliable: {sure['units']:,} units, {sure['share']:.0%} (significant at an"
        f" FDR of 5 %, r² of at least {EXPLAINS:.0%} over the whole interval, specificity of at"
        f" least {SPECIFIC:.0%}).",
        "",
        "| layer | simulation score | reliable | most frequent text | shared by all units |",
        "|---|---|---|---|---|",
    ]
    for layer, figures in found["layers"].items():
        common = figures["most_frequent"]
        shared = "; ".join(
            f"{one['variance']:.0%} of the variance ({', '.join(one['texts'])})"
            for one in figures["shared"]
        )
        lines.append(
            f"| {layer} | {figures['simulation_score']:.3f} | {figures['reliable_share']:.0%} |"
            f" {common['text']}, {common['share']:.1%} of labels | {shared or '–'} |"
        )
    if others:
        lines += ["", "| texts of the same number | simulation score | reliable |", "|---|---|---|"]
        ranked = sorted(others["methods"].items(), key=lambda pair: -pair[1]["simulation_score"])
        for name, figures in ranked:
            low, high = figures["interval"]
            lines.append(
                f"| {name} | {figures['simulation_score']:.3f} ({low:.3f} to {high:.3f}) |"
                f" {figures['reliable_share']:.0%} |"
            )
    return "\n".join([*lines, "", f"Measured with `{found['command']}`."])


def _demoted(text: str) -> str:
    """Headings two levels lower, front matter left out, so that the text fits into a card."""
    if text.startswith("---\n") and "\n---\n" in text[4:]:
        text = text.split("\n---\n", 1)[1]
    lines = [f"##{line}" if line.startswith("#") else line for line in text.strip().splitlines()]
    return "\n".join(lines) + "\n"
