"""Adversarial pictures by class-pair cues (Table 3), as `python -m export attack` makes them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from clipneurons.adversarial.methods import (
    DENSE_EFFECTS,
    INDIRECT,
    METHODS,
    NO_CUES,
    OURS,
    RECORDED_EFFECTS,
    RECORDED_EMBEDDINGS,
    SECOND_ORDER,
    TESTED_LABELS,
)
from clipneurons.bundle.config import CONFIG
from clipneurons.shipped import TOWERS
from export.attack.options import ALL, COMPOSER, PHOTOGRAPHS, AttackOptions
from export.attack.run import run_attack
from export.common.numbers import percent
from research.papers import published
from research.papers.charts import Bar, bar_chart
from research.papers.context import EvaluationContext
from research.papers.types import Claim, Experiment, Figure, Section, Table

# The paper's pairs have few photographs here. No setting was chosen on these.
PHOTOGRAPH_PAIRS = (
    ("butterfly", "scorpion"), ("elephant", "rhinoceros"), ("ferry", "airplane"),
    ("leopard", "deer"), ("motorcycle", "helicopter"), ("sunflower", "butterfly"),
)  # fmt: skip
Pair = tuple[str, str]


def measure(context: EvaluationContext) -> dict:
    """The attack's own summary over the paper's pairs, all methods with the same budget; with the
    composer over pairs of photographs too."""
    options = context.options
    result = {
        "pictures": options.pictures,
        "seeds": options.seeds,
        "describer": options.describer,
        "painter": options.painter,
        **_attack(context, options.painter, list(published.ADVERSARIAL), ALL),
    }
    if options.painter == COMPOSER:
        # Indirect effects take a minute; pictograms show what they are worth.
        without = {INDIRECT} if context.bundle.labels else {INDIRECT, TESTED_LABELS}
        methods = ",".join(method for method in METHODS if method not in without)
        result[PHOTOGRAPHS] = _attack(context, PHOTOGRAPHS, PHOTOGRAPH_PAIRS, methods)
    return result


def _attack(context: EvaluationContext, painter: str, pairs: Sequence[Pair], methods: str) -> dict:
    """The summary of one painter's pictures; the bundled models judge each other's."""
    options = context.options
    folder, others = context.work / "attack", context.folder.resolve().parent
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "pairs.csv"
    file.write_text("".join(f"{true},{target}\n" for true, target in pairs))
    data = context.images or "scenes"
    run_attack(
        AttackOptions(
            out=folder / "out", bundle=str(context.folder), pairs=str(file),
            methods=methods, images=options.pictures, seeds=options.seeds, keep="none",
            describer=options.describer, painter=painter, heldout=painter == PHOTOGRAPHS,
            data=f"{data}:256" if data == "scenes" else data,
            # The bundled models judge each other's pictures where both lie in one folder.
            transfer=[
                str(others / name)
                for name in TOWERS
                if name != context.folder.resolve().name and (others / name / CONFIG).is_file()
            ],
        )
    )  # fmt: skip
    summary = json.loads((folder / "out" / "summary.json").read_text())
    shutil.rmtree(folder)
    transfer = {Path(name).name: found for name, found in summary["transfer"].items()}
    return {
        "success": summary["success"],
        "flips": summary.get("flips"),
        "transfer": transfer,
    }


def report(result: Mapping) -> Section:
    """Success by pair and method, theirs in brackets; what the cues alone cause; transfer."""
    parts: list[Table | Figure] = []
    claims: list[Claim] = []
    for what, found in _by_pictures(result).items():
        parts += _shown(what, found)
        claims += _claims(what, found)
    transfer = _transfer(result)
    return Section(
        title="Adversarial pictures from class-pair cues",
        source="2406.04341, Section 5.1 and Table 3",
        text="Pictures of the first class together with objects that the neurons confuse with "
        f"the second: {result['pictures']} pictures, {result['seeds']} seeds, described by "
        f"{result['describer']} and painted by {result['painter']} (the paper: a language model "
        "and a diffusion model). Photographs are pasted whole: of the true class, of the half "
        "that no setting was chosen on, and of cues where there are some; indirect effects are "
        "run on the paper's pairs alone.",
        parts=[*parts, _comparison(result), *([transfer] if transfer else [])],
        claims=claims,
    )


def _by_pictures(result: Mapping) -> dict[str, Mapping]:
    """Figures by what the pictures are made of."""
    photographs = result.get(PHOTOGRAPHS)  # results of before have none
    return {"pictures": result} | ({PHOTOGRAPHS: photographs} if photographs else {})


def _shown(what: str, found: Mapping) -> list[Table | Figure]:
    """Bars of success, the table by pair, and bars of what the cues cause."""
    success, flips = found["success"], found["flips"]
    methods = [method for method in METHODS if method in success["overall"]]
    rows = []
    for title, mine in success["table"].items():
        theirs = published.ADVERSARIAL.get(tuple(title.split(" → ")), ())
        known = dict(zip(published.ADVERSARIAL_METHODS, theirs, strict=False))
        cells = [
            f"{percent(mine[method]['mean'])} ± {percent(mine[method]['sd'])}"
            + (f" [{known[method]:g}]" if method in known else "")
            for method in methods
        ]
        rows.append([title, *cells])
    rows.append(["mean", *(percent(success["overall"][method]["mean"]) for method in methods)])
    parts: list[Table | Figure] = [
        Figure(
            bar_chart(_bars(success), f"{what} read as the second class, mean over pairs, %"),
            f"Success by where the cues come from, {what}, all with the same budget and seeds.",
        ),
        Table(
            f"{what.capitalize()} read as the second class, per cent, mean and deviation over "
            f"seeds; in brackets theirs ({published.MODEL.split(',')[0]}, diffusion pictures).",
            ["", *methods],
            rows,
        ),
    ]
    if flips:
        parts.append(
            Figure(
                bar_chart(_bars(flips), f"{what} misread with cues, rightly read without them, %"),
                "What the cues cause, apart from the model's own mistakes.",
            )
        )
    return parts


def _bars(measure: Mapping) -> list[Bar]:
    """Means over pairs, with the interval of all pictures together."""
    return [
        Bar(
            method,
            100 * counted["mean"],
            [100 * counted["low"], 100 * counted["high"]],
            0 if method in OURS else 1,
        )
        for method, counted in measure["overall"].items()
    ]


def _rivals(measure: Mapping) -> list[tuple[str, str]]:
    """Each of our ways with the best baseline; that of pictures with its control too."""
    overall, best = measure["overall"], measure["comparison"].get("best baseline")
    rivals = [(ours, best) for ours in OURS if ours in overall and best]
    seen = {RECORDED_EFFECTS, RECORDED_EMBEDDINGS} <= set(overall)
    return [*rivals, (RECORDED_EFFECTS, RECORDED_EMBEDDINGS)] if seen else rivals


def _comparison(result: Mapping) -> Table:
    """A row each for the paper's cues and for ours, against the best baseline or a control."""
    rows = []
    for what, found in _by_pictures(result).items():
        for name, counted in (("success", "all"), ("flips", "caused by the cues")):
            measure = found[name]
            for ours, rival in _rivals(measure) if measure else ():
                means = (percent(measure["overall"][m]["mean"]) for m in (ours, rival))
                times = _times(measure["comparison"]["ratios"].get(ours, {}).get(rival)) or "–"
                rows.append([f"{what}, {counted}", ours, *means, rival, times])
    return Table(
        "Against the best baseline, and cues chosen by pictures against the same pictures read "
        "without neurons, per cent; 95 % bootstrap over pairs and seeds.",
        ["", "cues", "success", "the other's", "the other", "ratio"],
        rows,
    )


def _transfer(result: Mapping) -> Table | None:
    """How many of the pictures that fool this model fool the other tower, and of all."""
    rows = []
    for what, found in _by_pictures(result).items():
        for name, by_method in found.get("transfer", {}).items():
            for method, rates in by_method.items():
                cells = (
                    percent(rate["successes"] / rate["count"]) if rate["count"] else "–"
                    for rate in (rates["all"], rates["of successes"])
                )
                rows.append([f"{what} → {name}", method, *cells])
    if not rows:
        return None
    return Table(
        "Transfer: pictures that another model misreads too, per cent.",
        ["", "cues", "of all", "of those that fool this model"],
        rows,
    )


def _claims(what: str, found: Mapping) -> list[Claim]:
    """That each of our ways beats every baseline, in all and caused by the cues, and a control."""
    success, flips = found["success"], found["flips"]
    alone = percent(success["overall"][NO_CUES]["mean"])
    claims = []
    for ours, rival in _rivals(success):
        text = f"{what.capitalize()} with cues of {_WORDS[ours]} fool the model more often "
        text += f"than {_RIVALS.get(rival, 'those of every baseline')}"
        claims.append(_claim(f"{text}.", success, ours, rival, f", {alone} % without any cue."))
        if flips and flips["comparison"].get("best baseline"):
            rival = rival if rival in _RIVALS else flips["comparison"]["best baseline"]
            text += ", of the pictures that are read rightly without cues."
            claims.append(_claim(text, flips, ours, rival, "."))
    return claims


_WORDS = {
    SECOND_ORDER: "the second-order effects",
    DENSE_EFFECTS: "all that the neurons write (ours)",
    TESTED_LABELS: "the neurons' tested labels (ours)",
    RECORDED_EFFECTS: "what the neurons do in pictures of them, which no baseline sees (ours)",
}
_RIVALS = {RECORDED_EMBEDDINGS: "those of the same pictures read without the neurons"}


def _claim(text: str, measure: Mapping, ours: str, rival: str, rest: str) -> Claim:
    overall, ratio = measure["overall"], measure["comparison"]["ratios"].get(ours, {}).get(rival)
    evidence = (
        f"{percent(overall[ours]['mean'])} % against {percent(overall[rival]['mean'])} % "
        f"for {rival}{f' ({_times(ratio)})' if _times(ratio) else ''}{rest}"
    )
    holds: bool | None = overall[ours]["mean"] > overall[rival]["mean"]
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
