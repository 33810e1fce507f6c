"""Adversarial images by class-pair cues (Table 3), as `python -m export attack` makes them.

Cues of neurons ("second-order" is the paper's method, "recorded effects" ours) against every
baseline, and recorded effects against their control, the same images without neurons.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from clipneurons.adversarial.cue_request import (
    BY_NEURONS,
    NO_CUES,
    RECORDED_EFFECTS,
    RECORDED_EMBEDDINGS,
    SECOND_ORDER,
)
from clipneurons.bundle.config import CONFIG
from clipneurons.shipped import TOWERS
from export.attack.components import Baselines
from export.attack.options import COMPOSER, PHOTOGRAPHS, AttackOptions
from export.attack.run import run_attack
from export.common.numbers import percent
from research.papers import published
from research.papers.charts import Bar, bar_chart
from research.papers.context import EvaluationContext
from research.papers.cue_baselines import (
    ALL_METHODS,
    INDIRECT,
    RANDOM_NEURONS,
    RANDOM_WORDS,
    indirect_effects,
    random_neurons,
    random_words,
)
from research.papers.types import Claim, Experiment, Figure, Section, Table

# Images on which indirect effects are measured.
_IMAGES = 256
# The paper's pairs have few photographs here. No setting was chosen on these.
PHOTOGRAPH_PAIRS = (
    ("butterfly", "scorpion"), ("elephant", "rhinoceros"), ("ferry", "airplane"),
    ("leopard", "deer"), ("motorcycle", "helicopter"), ("sunflower", "butterfly"),
)  # fmt: skip
CONTROL_DECIDES = (
    "Cues from recorded effects fool about as often as cues from the same recordings without "
    "neurons."
)
Pair = tuple[str, str]


def measure(context: EvaluationContext) -> dict:
    """The attack's own summary over the paper's pairs, all methods with the same budget; with the
    composer over pairs of photographs too."""
    options = context.options
    # Indirect effects are those of a ViT's neurons.
    methods = [m for m in ALL_METHODS if m != INDIRECT or context.clip.kind == "vit"]
    result = {
        "pictures": options.pictures,
        "seeds": options.seeds,
        "describer": options.describer,
        "painter": options.painter,
        **_attack(context, options.painter, list(published.ADVERSARIAL), methods),
    }
    if options.painter == COMPOSER:
        # Indirect effects take a minute; pictograms show what they are worth.
        methods = [method for method in methods if method != INDIRECT]
        result[PHOTOGRAPHS] = _attack(context, PHOTOGRAPHS, PHOTOGRAPH_PAIRS, methods)
    return result


def _attack(
    context: EvaluationContext, generator: str, pairs: Sequence[Pair], methods: Sequence[str]
) -> dict:
    """The summary of one generator's images; the bundled models judge each other's."""
    options = context.options
    folder, others = context.work / "attack", context.folder.resolve().parent
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "pairs.csv"
    file.write_text("".join(f"{true},{target}\n" for true, target in pairs))
    run_attack(
        AttackOptions(
            out=folder / "out", bundle=str(context.folder), pairs=str(file),
            methods=",".join(methods), images=options.pictures, seeds=options.seeds, keep="none",
            describer=options.describer, generator=generator, heldout=generator == PHOTOGRAPHS,
            # The bundled models judge each other's images where both lie in one folder.
            transfer=[
                str(others / name)
                for name in TOWERS
                if name != context.folder.resolve().name and (others / name / CONFIG).is_file()
            ],
        ),
        _baselines(context),
    )  # fmt: skip
    summary = json.loads((folder / "out" / "summary.json").read_text())
    shutil.rmtree(folder)
    transfer = {Path(name).name: rates for name, rates in summary["transfer"].items()}
    return {
        "success": summary["success"],
        "flips": summary.get("flips"),
        "transfer": transfer,
    }


def _baselines(context: EvaluationContext) -> Baselines:
    def images() -> Tensor:
        batches = context.pass_over(context.usual, "images of indirect effects", _IMAGES)
        return torch.cat([images for _, images, _ in batches])

    indirect = indirect_effects(context.clip, images, context.bundle.config.components)
    return {RANDOM_NEURONS: random_neurons, RANDOM_WORDS: random_words, INDIRECT: indirect}


def report(result: Mapping) -> Section:
    """Success by pair and method, theirs in brackets; what the cues alone cause; transfer."""
    parts: list[Table | Figure] = []
    claims: list[Claim] = []
    for what, measured in _by_images(result).items():
        parts += _shown(what, measured)
        claims += _claims(what, measured)
    transfer = _transfer(result)
    return Section(
        title="Adversarial images from class-pair cues",
        source="2406.04341, Section 5.1 and Table 3",
        text="Images of the true class together with objects that the neurons confuse with the "
        f"target class: {result['pictures']} images, {result['seeds']} seeds, described by "
        f"{result['describer']} and drawn by {result['painter']} (the paper: a language model "
        "and a diffusion model). Photographs are pasted whole: of the true class, of the half "
        "that no setting was chosen on, and of cues where there are some; indirect effects are "
        f"run on the paper's pairs alone. {CONTROL_DECIDES}",
        parts=[*parts, _comparison(result), *([transfer] if transfer else [])],
        claims=claims,
    )


def _by_images(result: Mapping) -> dict[str, Mapping]:
    """Figures by what the images are made of."""
    photographs = result.get(PHOTOGRAPHS)
    return {"pictograms": result} | ({PHOTOGRAPHS: photographs} if photographs else {})


def _shown(what: str, measured: Mapping) -> list[Table | Figure]:
    """Bars of success, the table by pair, and bars of what the cues cause."""
    success, flips = measured["success"], measured["flips"]
    methods = _methods(success)
    rows = []
    for title, by_method in success["table"].items():
        theirs = published.ADVERSARIAL.get(tuple(title.split(" → ")), ())
        known = dict(zip(published.ADVERSARIAL_METHODS, theirs, strict=False))
        cells = [
            f"{percent(by_method[method]['mean'])} ± {percent(by_method[method]['sd'])}"
            + (f" [{known[method]:g}]" if method in known else "")
            for method in methods
        ]
        rows.append([title, *cells])
    rows.append(["mean", *(percent(success["overall"][method]["mean"]) for method in methods)])
    parts: list[Table | Figure] = [
        Figure(
            bar_chart(_bars(success), f"{what} read as the target class, mean over pairs, %"),
            f"Success by where the cues come from, {what}, all with the same budget and seeds.",
        ),
        Table(
            f"{what.capitalize()} read as the target class, per cent, mean and deviation over "
            f"seeds; in brackets theirs ({published.MODEL.split(',')[0]}, diffusion images).",
            ["", *methods],
            rows,
        ),
    ]
    if flips:
        parts.append(
            Figure(
                bar_chart(
                    _bars(flips), f"{what} misread with cues, read correctly without them, %"
                ),
                "What the cues cause, apart from the model's own mistakes.",
            )
        )
    return parts


def _bars(measure: Mapping) -> list[Bar]:
    """Means over pairs, with the interval of all images together."""
    return [
        Bar(
            method,
            100 * (counted := measure["overall"][method])["mean"],
            [100 * counted["low"], 100 * counted["high"]],
            0 if method in BY_NEURONS else 1,
        )
        for method in _methods(measure)
    ]


def _methods(measure: Mapping) -> list[str]:
    return [method for method in ALL_METHODS if method in measure["overall"]]


def _compared(measure: Mapping) -> list[tuple[str, str]]:
    """The paper's cues with the best baseline, recorded effects with their control.

    Whether recorded effects beat a baseline that saw no images says nothing about neurons.
    """
    overall, best = measure["overall"], measure["comparison"].get("best baseline")
    pairs = [(SECOND_ORDER, best), (RECORDED_EFFECTS, RECORDED_EMBEDDINGS)]
    return [pair for pair in pairs if set(pair) <= set(overall)]


def _comparison(result: Mapping) -> Table:
    """A row for the paper's cues and one for recorded effects, against baseline and control."""
    rows = []
    for what, measured in _by_images(result).items():
        for name, counted in (("success", "all"), ("flips", "caused by the cues")):
            measure = measured[name]
            for method, other in _compared(measure) if measure else ():
                means = (percent(measure["overall"][m]["mean"]) for m in (method, other))
                times = _times(measure["comparison"]["ratios"].get(method, {}).get(other)) or "–"
                rows.append([f"{what}, {counted}", method, *means, other, times])
    return Table(
        "The paper's cues against the best baseline, recorded effects against the same images "
        "without neurons, per cent; 95 % bootstrap over pairs and seeds.",
        ["", "cues", "success", "the other's", "the other", "ratio"],
        rows,
    )


def _transfer(result: Mapping) -> Table | None:
    """How many of the images that fool this model fool the other tower, and of all."""
    rows = []
    for what, measured in _by_images(result).items():
        for name, by_method in measured.get("transfer", {}).items():
            for method in (method for method in ALL_METHODS if method in by_method):
                rates = by_method[method]
                cells = (
                    percent(rate["successes"] / rate["count"]) if rate["count"] else "–"
                    for rate in (rates["all"], rates["of successes"])
                )
                rows.append([f"{what} → {name}", method, *cells])
    if not rows:
        return None
    return Table(
        "Transfer: images that another model misreads too, per cent.",
        ["", "cues", "of all", "of those that fool this model"],
        rows,
    )


def _claims(what: str, measured: Mapping) -> list[Claim]:
    """The paper's cues beat every baseline, recorded effects their control; in all, and of the
    images that are read correctly without cues."""
    success, flips = measured["success"], measured["flips"]
    alone = percent(success["overall"][NO_CUES]["mean"])
    claims = []
    for method, other in _compared(success):
        text = f"{what.capitalize()} with cues of {_WORDS[method]} fool the model more often than "
        text += (
            "the same cue images without neurons"
            if other == RECORDED_EMBEDDINGS
            else ("those of every baseline")
        )
        rest = f", {alone} % without any cue."
        claims.append(_claim(f"{text}.", success, (method, other), rest))
        if flips and (compared := dict(_compared(flips))):
            text += ", of the images that are read correctly without cues."
            claims.append(_claim(text, flips, (method, compared[method]), "."))
    return claims


_WORDS = {
    SECOND_ORDER: "the second-order effects (the paper's method)",
    RECORDED_EFFECTS: "recorded effects",
}


def _claim(text: str, measure: Mapping, compared: tuple[str, str], rest: str) -> Claim:
    method, other = compared
    overall, ratio = measure["overall"], measure["comparison"]["ratios"].get(method, {}).get(other)
    evidence = (
        f"{percent(overall[method]['mean'])} % against {percent(overall[other]['mean'])} % "
        f"for {other}{f' ({_times(ratio)})' if _times(ratio) else ''}{rest}"
    )
    holds: bool | None = overall[method]["mean"] > overall[other]["mean"]
    if ratio and None not in (ratio["low"], ratio["high"]) and ratio["low"] <= 1 <= ratio["high"]:
        holds = None
    return Claim(text, holds, evidence)


def _times(ratio: Mapping | None) -> str:
    if not ratio or None in (ratio["value"], ratio["low"], ratio["high"]):
        return ""
    return f"{ratio['value']:.2f} times, 95 % {ratio['low']:.2f} to {ratio['high']:.2f}"


EXPERIMENT = Experiment(
    "adversarial", ("vit", "resnet"), ("pictures", "seeds", "describer", "painter"), measure,
    report, "labels",
)  # fmt: skip
