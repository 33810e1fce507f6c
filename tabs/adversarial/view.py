"""Cues, images and success rates as HTML for the page, as JSON for programs, and as a zip."""

from __future__ import annotations

import csv
import io
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from clipneurons.adversarial.cue_request import (
    NO_CUES,
    RECORDED_EFFECTS,
    RECORDED_EMBEDDINGS,
    SECOND_ORDER,
    SIMILAR_WORDS,
)
from clipneurons.bundle.unit_words import plain
from clipneurons.images.convert import png_uri
from tabs.adversarial.attacks import Attack, classifier_of
from tabs.server.session import BundleSession
from tabs.ui import plots

if TYPE_CHECKING:
    from PIL import Image

    from clipneurons.adversarial.attack import Outcome
    from clipneurons.adversarial.cues import Cue, Cues
    from clipneurons.stats.intervals import Rate

PURPOSE = (
    "The images are for finding spurious correlations and training them away, not for deceiving "
    "systems that others rely on."
)
OWN_CUES = "Your own cues: no units were asked."
_UNITS_SHOWN, _AWAY_SHOWN, _DROPPED_SHOWN = 4, 10, 12
_LABELS = {
    "": "your own cues",
    RECORDED_EFFECTS: "cues from recorded effects",
    RECORDED_EMBEDDINGS: "same cue images, no neurons (control)",
    SECOND_ORDER: "the paper's cues (second-order)",
    SIMILAR_WORDS: "texts nearest the target class (baseline)",
    NO_CUES: "no cues",
}
_CONTROL_DECIDES = (
    "On the bundled models, cues from recorded effects fool about as often as their control, the "
    "same recordings without neurons. "
)


def cues_html(session: BundleSession, cues: Cues) -> str:
    """Cues toward the target class with the units behind each."""
    if not cues.positive:
        return plots.empty(
            f"No text that can be drawn pushes {cues.true_class} toward {cues.target_class}: try "
            "another pair."
        )
    rows = "".join(
        f"<li><b>{escape(plain(cue.text))}</b> {_signed(cue.score)}{_units(session.key, cue)}</li>"
        for cue in cues.positive
    )
    return plots.section(
        f"Cues toward {cues.target_class}", f'<ol class="cn-cues">{rows}</ol>',
        f"Score ({cues.method}), and the units behind it.",
    )  # fmt: skip


def more_cues_html(cues: Cues, similarity: str) -> str:
    """Cues away from the target class, and what may not be a cue."""
    away = plots.bars(
        [plots.Bar(plain(cue.text), cue.score) for cue in cues.negative[:_AWAY_SHOWN]],
        label=f"Cues away from {cues.target_class}", digits=3,
    )  # fmt: skip
    dropped = ", ".join(f"{text} ({why})" for text, why in cues.dropped[:_DROPPED_SHOWN])
    return plots.section(f"Cues away from {cues.target_class}", away) + plots.section(
        "Left out", plots.empty(dropped or "Nothing."), f"Synonyms are found by {similarity}."
    )


def gallery_of(attack: Attack) -> list[tuple]:
    """Images with the model's verdicts."""
    return [
        (
            outcome.image.resize((160, 160), 0),
            _verdict(attack, outcome),
        )
        for outcome in attack.outcomes
    ]


def _verdict(attack: Attack, outcome: Outcome) -> str:
    read = f"✗ read as {attack.target_class}" if outcome.fooled else "✓ read correctly"
    why = "a near copy" if outcome.duplicate else outcome.presence
    return f"{read} ({_signed(outcome.margin)})" + ("" if outcome.valid else f"; {why}")


def map_label(attack: Attack, outcome: Outcome) -> str:
    """What an image's map shows: nothing went wrong where it was read correctly."""
    if outcome.fooled:
        return "Where the mistake comes from"
    return f"What speaks for {attack.target_class}"


def mistake_overlay(session: BundleSession, attack: Attack, index: int) -> Image.Image:
    """An image with the patches that speak for the target class in colour."""
    import torch

    from clipneurons.adversarial.zero_shot import mistake_maps
    from clipneurons.images.heatmap import overlay

    image = attack.outcomes[index].image
    classifier = classifier_of(session, attack.true_class, attack.target_class)
    heat = mistake_maps(session.lens, [image], classifier.difference)[0].clamp_min(0)
    heat = heat / heat.max().clamp_min(1e-12)
    shown = image.resize((256, 256))
    heat = torch.nn.functional.interpolate(heat[None, None], size=(256, 256), mode="bilinear")
    return overlay(shown, heat[0, 0], 0.55)


def rates_html(attack: Attack, baselines: Mapping[str, Rate]) -> str:
    """Success rates with their intervals as bars: the cues' own, their control, the baselines."""
    from clipneurons.adversarial.attack import success_rate

    own = success_rate(attack.outcomes)
    rates = {attack.method: own, **baselines}
    known = all(outcome.objects is not None for outcome in attack.outcomes)
    note = (
        f"{own}. {_CONTROL_DECIDES if RECORDED_EMBEDDINGS in baselines else ''}Lines are Wilson "
        f"95 % intervals. What the images show is {'known exactly' if known else 'unchecked'}."
    )
    return plots.section(
        f"Success rate: images of {attack.true_class} read as {attack.target_class}, %",
        plots.bars(
            [_rate_bar(_LABELS[name], rate) for name, rate in rates.items()],
            label="Success rates in per cent", digits=1, most=100.0, wide=True,
        ),
        note,
    )  # fmt: skip


def attack_data(
    attack: Attack, baselines: Mapping[str, Rate], cues: Sequence[str], untrained: Sequence[str]
) -> dict:
    """Images with verdicts and the success rates, as `/attack` gives them."""
    from clipneurons.adversarial.attack import success_rate

    def row(rate: Rate) -> dict:
        value = rate.value if rate.count else None
        return {
            "rate": value, "interval": rate.interval, "fooled": rate.successes,
            "images": rate.count,
        }  # fmt: skip

    return {
        "bundle": attack.key, "true_class": attack.true_class,
        "target_class": attack.target_class, "method": attack.method or "own cues",
        "cues": list(cues), "never_trained": list(untrained),
        "success": row(success_rate(attack.outcomes)),
        "baselines": {name: row(rate) for name, rate in baselines.items()},
        "images": [
            {
                "description": outcome.description.text, "cues": list(outcome.description.cues),
                "shows": outcome.presence, "counts": outcome.valid, "fooled": outcome.fooled,
                "margin": outcome.margin, "seed": outcome.seed, "image": png_uri(outcome.image),
            }
            for outcome in attack.outcomes
        ],
    }  # fmt: skip


def zip_file(attack: Attack) -> str:
    """Images, their descriptions and verdicts, and what they are for, in a zip."""
    file = Path(tempfile.mkdtemp(prefix="clipneurons-")) / "adversarial.zip"
    lines = io.StringIO()
    writer = csv.writer(lines)
    writer.writerow(["file", "description", "cues", "shows", "fooled", "margin", "seed"])
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, outcome in enumerate(attack.outcomes):
            buffer = io.BytesIO()
            outcome.image.save(buffer, "PNG")
            name = f"{number:03d}.png"
            archive.writestr(name, buffer.getvalue())
            writer.writerow([
                name, outcome.description.text, "|".join(outcome.description.cues),
                outcome.presence, outcome.fooled, f"{outcome.margin:.4f}", outcome.seed,
            ])  # fmt: skip
        archive.writestr("images.csv", lines.getvalue())
        title = f"{attack.true_class} read as {attack.target_class}: {_LABELS[attack.method]}"
        archive.writestr("README.txt", f"{title}\n\n{PURPOSE}\n")
    return str(file)


def _rate_bar(name: str, rate: Rate) -> plots.Bar:
    if not rate.count:
        return plots.Bar(name, 0.0, str(rate))
    return plots.Bar(
        name, 100 * rate.value, f"{name}: {rate}", interval=(100 * rate.low, 100 * rate.high)
    )


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _units(key: str, cue: Cue) -> str:
    links = ", ".join(
        plots.link(f"{u.layer} · {u.unit}", tab="explore", layer=u.layer, unit=u.unit, bundle=key)
        for u in cue.units[:_UNITS_SHOWN]
    )
    return f'<span class="cn-units">{links}</span>' if links else ""
