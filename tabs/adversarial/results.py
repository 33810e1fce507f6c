"""Cues, pictures and success rates: as the page shows them and as the API gives them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from clipneurons.adversarial.methods import RECORDED_EMBEDDINGS
from clipneurons.bundle.unit_words import plain
from clipneurons.images.convert import png_uri
from tabs.adversarial.pictures import Forged
from tabs.server.session import BundleSession
from tabs.ui import plots

if TYPE_CHECKING:
    from clipneurons.adversarial.attack import Outcome
    from clipneurons.adversarial.cues import Cue, Cues
    from clipneurons.stats.intervals import Rate

_NEURONS_SHOWN = 4
# What a baseline's own name does not tell whoever reads the page.
_ON_PAGE = {RECORDED_EMBEDDINGS: "without neurons"}


def cues_html(session: BundleSession, cues: Cues, similarity: str) -> str:
    """Cues with their scores and the neurons behind them."""
    toward = plots.bars(
        [plots.Bar(plain(cue.text), cue.score, _hint(cue)) for cue in cues.positive],
        label=f"Cues toward {cues.target_class}", digits=3,
    )  # fmt: skip
    away = plots.bars(
        [plots.Bar(plain(cue.text), cue.score, _hint(cue)) for cue in cues.negative[:10]],
        label=f"Cues away from {cues.target_class}", digits=3,
    )  # fmt: skip
    rows = "".join(
        f"<li>{escape(plain(cue.text))}: {_neurons(session.key, cue)}</li>"
        for cue in cues.positive
        if cue.neurons
    )
    dropped = ", ".join(f"{text} ({reason})" for text, reason in cues.dropped[:12]) or "none"
    return "".join([
        plots.section(
            f"What pushes {cues.true_class} toward {cues.target_class}", toward,
            f"Left out: {dropped}. Synonyms are found by {similarity}.",
        ),
        plots.section("Neurons behind each cue", f"<ul>{rows}</ul>" if rows else plots.empty(
            "These cues do not come from neurons.")),
        plots.section(f"What pushes away from {cues.target_class}", away),
    ])  # fmt: skip


def cues_data(cues: Cues, similarity: str) -> dict:
    """Cues as the API gives them."""

    def rows(found: Sequence[Cue]) -> list[dict]:
        return [
            {"phrase": cue.text, "score": cue.score, "neurons": [
                {"layer": n.layer, "unit": n.unit, "share": n.share} for n in cue.neurons]}
            for cue in found
        ]  # fmt: skip

    return {
        "toward": rows(cues.positive), "away": rows(cues.negative),
        "dropped": [{"phrase": text, "reason": reason} for text, reason in cues.dropped],
        "synonyms_found_by": similarity,
    }  # fmt: skip


def gallery_of(outcomes: Sequence[Outcome], target_class: str) -> list[tuple]:
    """Pictures with what the model made of them."""
    return [
        (
            outcome.image.resize((160, 160), 0),
            f"{'✗ read as ' + target_class if outcome.fooled else '✓ read rightly'}"
            + f" ({outcome.margin:+.3f})".replace("-", "−")
            + ("" if outcome.valid else f"; {_not_counted(outcome)}"),
        )
        for outcome in outcomes
    ]


def map_label(outcome: Outcome, target_class: str) -> str:
    """What a picture's map shows: nothing went wrong where it was read rightly."""
    return "Where the mistake comes from" if outcome.fooled else f"What speaks for {target_class}"


def rates_html(forged: Forged, rates: dict[str, Rate]) -> str:
    """Success rates with their intervals as bars: the cues' own, and those of the baselines."""
    from clipneurons.adversarial.attack import success_rate

    own = success_rate(forged.outcomes)
    named = {_ON_PAGE.get(name, name): rate for name, rate in rates.items()}
    rows = [_rate_bar(name, rate) for name, rate in {forged.method: own, **named}.items()]
    what = f"Pictures of {forged.true_class} that are read as {forged.target_class}, per cent"
    note = (
        f"{own}. The thin lines are 95 % intervals (Wilson): where they overlap widely, so few "
        f"pictures do not tell which is better. What they show is {_checked(forged)}."
    )
    return plots.section(
        what, plots.bars(rows, label="Success rates in per cent", digits=1, most=100.0), note
    )


def attack_data(
    forged: Forged, rates: dict[str, Rate], cues: Sequence[str], untrained: Sequence[str]
) -> dict:
    """Pictures with verdicts and the success rates, as the API gives them."""
    from clipneurons.adversarial.attack import success_rate

    def row(rate: Rate) -> dict:
        value = rate.value if rate.count else None
        return {
            "rate": value, "interval": rate.interval, "fooled": rate.successes,
            "pictures": rate.count,
        }  # fmt: skip

    return {
        "bundle": forged.key, "true": forged.true_class, "target": forged.target_class,
        "cues": list(cues), "never_trained": list(untrained),
        "success": row(success_rate(forged.outcomes)),
        "baselines": {name: row(rate) for name, rate in rates.items()},
        "pictures": [
            {
                "description": outcome.description.text, "cues": list(outcome.description.cues),
                "shows": outcome.presence, "counts": outcome.valid, "fooled": outcome.fooled,
                "margin": outcome.margin, "seed": outcome.seed, "image": png_uri(outcome.image),
            }
            for outcome in forged.outcomes
        ],
    }  # fmt: skip


def _rate_bar(name: str, rate: Rate) -> plots.Bar:
    if not rate.count:
        return plots.Bar(name, 0.0, str(rate))
    return plots.Bar(
        name, 100 * rate.value, f"{name}: {rate}", interval=(100 * rate.low, 100 * rate.high)
    )


def _checked(forged: Forged) -> str:
    known = all(outcome.objects is not None for outcome in forged.outcomes)
    return "known exactly" if known else "unchecked"


def _not_counted(outcome: Outcome) -> str:
    return "a near copy" if outcome.duplicate else outcome.presence


def _hint(cue: Cue) -> str:
    behind = ", ".join(f"{n.layer} · {n.unit}" for n in cue.neurons[:_NEURONS_SHOWN])
    return f"{cue.text}: {cue.score:+.3f}" + (f", from neurons {behind}" if behind else "")


def _neurons(key: str, cue: Cue) -> str:
    return ", ".join(
        plots.link(
            f"{n.layer} · {n.unit}", tab="dictionary", layer=n.layer, unit=n.unit, bundle=key
        )
        + f" ({n.share:+.3f})".replace("-", "−")
        for n in cue.neurons[:_NEURONS_SHOWN]
    )
