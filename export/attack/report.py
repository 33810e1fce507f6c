"""The figures of an attack: the paper's Table 3 for the given pairs, transfer, and the defence."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from clipneurons.adversarial.attack import Outcome, spurious_cues, success_rate
from clipneurons.adversarial.cue_request import BY_NEURONS, NO_CUES, RECORDED_EMBEDDINGS
from clipneurons.bundle.folders import write_atomic
from clipneurons.stats.intervals import Rate, ratio_of_means, wilson
from export.attack.results import Cell

# A cue is named to a defender when it raises the rate beyond chance.
SUSPICIOUS = 10
Pair = tuple[str, str]


def summarise(
    done: Mapping[Cell, Sequence[Outcome]],
    pairs: Sequence[Pair],
    methods: Sequence[str],
    seeds: int,
) -> dict:
    """All figures as plain numbers; rates are shares, ``sd`` is the deviation over seeds."""
    success = {cell: success_rate(outcomes) for cell, outcomes in done.items()}
    summary = {"success": _measure(success, pairs, methods, seeds)}
    flips = flip_rates(done)
    if flips:
        others = [method for method in methods if method != NO_CUES]
        summary["flips"] = _measure(flips, pairs, others, seeds)
    return summary | {
        "transfer": _transfer(done, methods),
        "counted": _counted(done, methods),
        "defence": {_title(pair): _defence(done, pair) for pair in pairs},
    }


def flip_rates(done: Mapping[Cell, Sequence[Outcome]]) -> dict[Cell, Rate]:
    """Of the images that are read correctly without cues, the share misread with them.

    Only for composed images, where the same seed gives the same true object on the same ground:
    what differs then are the cues, so a weak model's own mistakes do not count.
    """
    rates = {}
    for cell, outcomes in done.items():
        alone = done.get(Cell(cell.pair, NO_CUES, cell.seed))
        if cell.method == NO_CUES or alone is None or any(o.objects is None for o in outcomes):
            continue
        right = {outcome.seed for outcome in alone if not outcome.fooled}
        counted = [outcome for outcome in outcomes if outcome.valid and outcome.seed in right]
        rates[cell] = wilson(sum(outcome.fooled for outcome in counted), len(counted))
    return rates


def _measure(
    rates: Mapping[Cell, Rate], pairs: Sequence[Pair], methods: Sequence[str], seeds: int
) -> dict:
    table = {
        _title(pair): {method: _of_seeds(rates, pair, method, seeds) for method in methods}
        for pair in pairs
    }
    overall = {
        method: asdict(_pooled(rates, [Cell(p, method, s) for p in pairs for s in range(seeds)]))
        | {"mean": statistics.fmean(table[_title(pair)][method]["mean"] for pair in pairs)}
        for method in methods
    }
    comparison = _compare(rates, overall, pairs, methods, seeds)
    return {"table": table, "overall": overall, "comparison": comparison}


def _of_seeds(rates: Mapping[Cell, Rate], pair: Pair, method: str, seeds: int) -> dict:
    of_seeds = [rates[Cell(pair, method, seed)] for seed in range(seeds)]
    # A cell of which no image counts (none shows the true object) is a success rate of 0.
    values = [rate.value if rate.count else 0.0 for rate in of_seeds]
    deviation = statistics.stdev(values) if seeds > 1 else 0.0
    return {"mean": statistics.fmean(values), "sd": deviation, "seeds": values}


def _pooled(rates: Mapping[Cell, Rate], cells: Sequence[Cell]) -> Rate:
    return wilson(
        sum(rates[cell].successes for cell in cells), sum(rates[cell].count for cell in cells)
    )


def _compare(rates, overall, pairs, methods, seeds) -> dict:
    """The neurons' cues against each baseline, pairs and seeds resampled together."""

    def grid(method: str) -> torch.Tensor:
        rows = [[rates[Cell(pair, method, s)] for s in range(seeds)] for pair in pairs]
        return torch.tensor([[r.value if r.count else 0.0 for r in row] for row in rows])

    by_neurons = [method for method in BY_NEURONS if method in methods]
    others = [method for method in methods if method not in by_neurons]
    ratios = {o: {m: asdict(ratio_of_means(grid(o), grid(m))) for m in others} for o in by_neurons}
    # Controls are no baselines: recorded embeddings have seen the images of recorded effects.
    baselines = [method for method in others if method not in (NO_CUES, RECORDED_EMBEDDINGS)]
    best = max(baselines, key=lambda m: overall[m]["mean"], default=None)
    return {"ratios": ratios, "best baseline": best}


def _transfer(done, methods) -> dict:
    """By other model: how many of each method's successes fool it too, and of all images."""
    names = {name for outcomes in done.values() for o in outcomes for name in o.transfer}
    result = {}
    for name in sorted(names):
        result[name] = {}
        for method in methods:
            outcomes = [o for cell, row in done.items() if cell.method == method for o in row]
            valid = [o for o in outcomes if o.valid]
            fooling = [o for o in valid if o.fooled]
            result[name][method] = {
                "all": asdict(wilson(sum(o.transfer[name] for o in valid), len(valid))),
                "of successes": asdict(
                    wilson(sum(o.transfer[name] for o in fooling), len(fooling))
                ),
            }
    return result


def _counted(done, methods) -> dict:
    """Why images were not counted, by method."""
    result = {}
    for method in methods:
        outcomes = [o for cell, row in done.items() if cell.method == method for o in row]
        presence: dict[str, int] = {}
        for outcome in outcomes:
            presence[outcome.presence] = presence.get(outcome.presence, 0) + 1
        result[method] = {
            "images": len(outcomes),
            "near copies": sum(o.duplicate for o in outcomes),
            "presence": presence,
        }
    return result


def _defence(done, pair: Pair) -> list[dict]:
    """Cues of all methods that make the model misread the true class more often, beyond chance."""
    outcomes = [o for cell, row in done.items() if cell.pair == pair for o in row]
    cues = [
        {"cue": cue.text, "with": asdict(cue.with_cue), "without": asdict(cue.without_cue)}
        for cue in spurious_cues(outcomes)
        if cue.with_cue.low > cue.without_cue.high
    ]
    return cues[:SUSPICIOUS]


def render(summary: Mapping, command: str, notes: Sequence[str]) -> str:
    """The summary as Markdown."""
    lines = [
        "# Adversarial images by class-pair cues",
        "",
        "Share of images of the true class that the model reads as the target class (mean ± "
        "standard deviation over seeds, per cent). Only images that show the true class, not the "
        "target class, and are no near copies, count.",
        "",
        f"    {command}",
        "",
        *(f"- {note}" for note in notes),
        "",
        *_measured(summary["success"]),
    ]
    if "flips" in summary:
        lines += [
            "## Caused by the cues",
            "",
            "Of the images that are read correctly without cues (the same true object on the same "
            "ground), the share misread with them.",
            "",
            *_measured(summary["flips"]),
        ]
    methods = list(summary["success"]["overall"])
    head = [_row("", methods), _row("---", ["---:"] * len(methods))]
    for name, by_method in summary["transfer"].items():
        everything = [_interval(by_method[m]["all"]) for m in methods]
        successes = [_interval(by_method[m]["of successes"]) for m in methods]
        lines += [f"## Transfer to {name}", "", *head, _row("misread, of all", everything)]
        lines += [_row("misread, of those that fool the model", successes), ""]
    lines += ["## Not counted", ""]
    for method, counted in summary["counted"].items():
        presence = ", ".join(f"{n} {what}" for what, n in sorted(counted["presence"].items()))
        copies = counted["near copies"]
        lines.append(f"- {method}: {counted['images']} images, {copies} near copies; {presence}")
    return "\n".join(lines) + "\n"


def _measured(measure: Mapping) -> list[str]:
    """One table of methods and pairs, and how cues of neurons compare."""
    methods = list(measure["overall"])
    lines = [_row("true → target", methods), _row("---", ["---:"] * len(methods))]
    for title, row in measure["table"].items():
        cells = [f"{100 * row[m]['mean']:.1f} ± {100 * row[m]['sd']:.1f}" for m in methods]
        lines.append(_row(title, cells))
    means = [f"**{100 * measure['overall'][m]['mean']:.1f}**" for m in methods]
    intervals = [_interval(measure["overall"][m]) for m in methods]
    lines += [_row("**mean over pairs**", means)]
    lines += [_row("all images, Wilson 95 %", intervals), ""]
    best = measure["comparison"].get("best baseline")
    if best:
        for ours, ratios in measure["comparison"]["ratios"].items():
            lines.append(
                f"Cues of {ours} against each (best baseline: {best}), 95 % bootstrap over pairs "
                "and seeds:"
            )
            for method, ratio in ratios.items():
                low, high = ratio["low"], ratio["high"]
                lines.append(f"- {ratio['value']:.2f} times {method} ({low:.2f} to {high:.2f})")
            lines.append("")
    return lines


def render_defence(summary: Mapping) -> str:
    """What a defender needs: the cues that each class depends on, with the evidence."""
    lines = [
        "# Spurious cues",
        "",
        "Objects beside which the model misreads a class more often than without them (intervals "
        "do not overlap). Training images of the class with them, and of them without the other "
        "class, are what removes the dependence.",
        "",
    ]
    for title, cues in summary["defence"].items():
        lines += [f"## {title}", ""]
        if not cues:
            lines.append("No cue beyond chance.")
        for cue in cues:
            lines.append(
                f"- {cue['cue']}: misread in {_interval(cue['with'])} with it, "
                f"{_interval(cue['without'])} without"
            )
        lines.append("")
    return "\n".join(lines)


def write(folder: Path, summary: Mapping, command: str, notes: Sequence[str]) -> None:
    """Write `summary.json`, `summary.md` and `defence.md`."""
    text = json.dumps(_finite(summary), indent=1, ensure_ascii=False, allow_nan=False)
    files = {
        "summary.json": text + "\n",
        "summary.md": render(summary, command, notes),
        "defence.md": render_defence(summary),
    }
    for name, content in files.items():
        write_atomic(folder / name, content.encode())


def _title(pair: Pair) -> str:
    return f"{pair[0]} → {pair[1]}"


def _row(title: str, cells: Sequence[str]) -> str:
    return f"| {title} | {' | '.join(cells)} |"


def _interval(rate: Mapping) -> str:
    if not rate["count"]:
        return "none"
    share = 100 * rate["successes"] / rate["count"]
    return f"{share:.1f} ({100 * rate['low']:.1f}–{100 * rate['high']:.1f})"


def _finite(value):
    """JSON knows no infinity: a ratio to a rate of zero is null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value
