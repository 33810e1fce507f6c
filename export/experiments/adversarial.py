"""Adversarial pictures by class-pair cues (Table 3), as `python -m export attack` makes them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping

from clipneurons.adversarial.methods import METHODS, NO_CUES, OURS, SECOND_ORDER
from export.attack.options import AttackOptions
from export.attack.run import run_attack
from export.report import published
from export.report.charts import Bar, bar_chart
from export.report.context import EvaluationContext
from export.report.metric import percent
from export.report.types import Claim, Experiment, Figure, Section, Table


def measure(context: EvaluationContext) -> dict:
    """The attack's own summary over the paper's pairs, all methods with the same budget."""
    options = context.options
    folder = context.work / "attack"
    folder.mkdir(parents=True, exist_ok=True)
    pairs = folder / "pairs.csv"
    pairs.write_text("".join(f"{true},{fooled}\n" for true, fooled in published.ADVERSARIAL))
    data = context.images or "scenes"
    run_attack(
        AttackOptions(
            out=folder / "out", bundle=str(context.folder), pairs=str(pairs),
            images=options.pictures, seeds=options.seeds, keep="none",
            describer=options.describer, painter=options.painter,
            data=f"{data}:256" if data == "scenes" else data,
        )
    )  # fmt: skip
    summary = json.loads((folder / "out" / "summary.json").read_text())
    shutil.rmtree(folder)
    return {
        "pictures": options.pictures,
        "seeds": options.seeds,
        "describer": options.describer,
        "painter": options.painter,
        "success": summary["success"],
        "flips": summary.get("flips"),
    }


def report(result: Mapping) -> Section:
    """Success by pair and method, theirs in brackets; what the cues alone cause."""
    success, flips = result["success"], result["flips"]
    rows = []
    for (true, fooled), theirs in published.ADVERSARIAL.items():
        mine = success["table"][f"{true} → {fooled}"]
        known = dict(zip(published.ADVERSARIAL_METHODS, theirs, strict=True))
        cells = [
            f"{percent(mine[method]['mean'])} ± {percent(mine[method]['sd'])}"
            + (f" [{known[method]:g}]" if method in known else "")
            for method in METHODS
        ]
        rows.append([f"{true} → {fooled}", *cells])
    rows.append(["mean", *(percent(success["overall"][method]["mean"]) for method in METHODS)])
    parts = [
        Figure(
            bar_chart(_bars(success), "pictures read as the second class, mean over pairs, %"),
            "Success by where the cues come from, all with the same budget and seeds.",
        ),
        Table(
            "Pictures read as the second class, per cent, mean and deviation over seeds; "
            f"in brackets theirs ({published.MODEL.split(',')[0]}, diffusion pictures).",
            ["", *METHODS],
            rows,
        ),
    ]
    claims = [
        _claim(
            "Pictures with cues of the second-order effects fool the model more often than those "
            "of every baseline.",
            success,
            f", {percent(success['overall'][NO_CUES]['mean'])} % without any cue.",
        )
    ]
    if flips:
        parts.append(
            Figure(
                bar_chart(_bars(flips), "misread with cues, read rightly without them, %"),
                "What the cues cause, apart from the model's own mistakes.",
            )
        )
        claims.append(_claim("The same, of the pictures that are read rightly without cues.",
                             flips, "."))  # fmt: skip
    return Section(
        title="Adversarial pictures from class-pair cues",
        source="2406.04341, Section 5.1 and Table 3",
        text="Pictures of the first class together with objects that the neurons confuse with "
        f"the second: {result['pictures']} pictures, {result['seeds']} seeds, described by "
        f"{result['describer']} and painted by {result['painter']} (the paper: a language model "
        "and a diffusion model).",
        parts=parts,
        claims=claims,
    )


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


def _claim(text: str, measure: Mapping, rest: str) -> Claim:
    overall, best = measure["overall"], measure["comparison"].get("best baseline")
    if not best:
        return Claim(text, None, "No baseline was run.")
    ratio = measure["comparison"]["ratios"].get(best)
    evidence = (
        f"{percent(overall[SECOND_ORDER]['mean'])} % against {percent(overall[best]['mean'])} % "
        f"for {best}{_times(ratio)}{rest}"
    )
    holds: bool | None = overall[SECOND_ORDER]["mean"] > overall[best]["mean"]
    if ratio and None not in (ratio["low"], ratio["high"]) and ratio["low"] <= 1 <= ratio["high"]:
        holds = None
    return Claim(text, holds, evidence)


def _times(ratio: Mapping | None) -> str:
    if not ratio or None in (ratio["value"], ratio["low"], ratio["high"]):
        return ""
    return f" ({ratio['value']:.2f} times, 95 % {ratio['low']:.2f} to {ratio['high']:.2f})"


EXPERIMENT = Experiment(
    "adversarial", ("vit",), ("pictures", "seeds", "describer", "painter"), measure, report
)
