"""Accuracy when every neuron is written in m texts, by m and pool of texts (Figure 4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from clipneurons.text.embedding import embed_texts
from clipneurons.text.pools import DESCRIPTIONS
from export.common.numbers import percent, spread
from export.common.settings import SIZES
from export.pipeline.inputs import open_texts
from research.papers.charts import Line, line_chart
from research.papers.context import EvaluationContext
from research.papers.metric import Metric, metric
from research.papers.tables import conditions_table
from research.papers.types import Claim, Experiment, Figure, Section


def measure(context: EvaluationContext) -> dict:
    """Figures by pool and number of texts, with first component and ablation beside them."""
    result: dict = {"layer": context.layer, "pools": {}}
    arrays = context.bundle.layers[context.layer]
    config = replace(context.bundle.config, layers=(context.layer,))
    for name in context.options.pools or default_pools(context):
        if name == config.pool.name:
            texts, embeddings = context.bundle.texts, context.bundle.text_embeddings
        else:
            texts = list(open_texts(name).texts)
            embeddings = embed_texts(context.clip, texts).cpu()
        variant = replace(
            context.bundle,
            config=config,
            layers={context.layer: arrays},
            text_embeddings=embeddings,
        )
        found = context.fidelity(variant, SIZES)
        result |= {key: found[key] for key in ("images", "count", "baseline")}
        figures = found["layers"][f"layer {context.layer}"]
        result["pools"][name] = {"texts": len(texts), "figures": figures}
    return result


def default_pools(context: EvaluationContext) -> list[str]:
    """The bundle's own, common words, and class descriptions where there is a file of them."""
    pools = [context.bundle.config.pool.name, "common-10k"]
    if context.clip.embed_dim > 256:  # for a large model the paper's second pool as well
        pools.append("common-30k")
    if Path(f"{DESCRIPTIONS}.txt").is_file():
        pools.append(DESCRIPTIONS)
    return list(dict.fromkeys(pools))


def report(result: Mapping) -> Section:
    """A curve a pool between the floor (ablation) and the ceiling (first component)."""
    by = metric(result["baseline"])
    lines, rows = [], {}
    names: dict[str, str] = {}
    ticks: list[tuple[float, str]] = []
    for pool, found in result["pools"].items():
        figures = found["figures"]
        sizes = [int(name.split()[0]) for name in figures if name.endswith(" texts")]
        label = f"{pool} ({found['texts']:,} texts)"
        lines.append(by.line(label, range(len(sizes)), [figures[f"{m} texts"] for m in sizes]))
        rows[pool] = figures
        if len(sizes) > len(ticks):  # a small pool has fewer
            names = {f"{m} texts": str(m) for m in sizes}
            ticks = [(i, str(m)) for i, m in enumerate(sizes)]
    figures = next(iter(result["pools"].values()))["figures"]
    ceiling, floor = (by(figures[c])[0] for c in ("first component", "all effects mean-ablated"))
    ends = [ticks[0][0], ticks[-1][0]]
    lines.append(Line("first component", ends, [100 * ceiling] * 2, dashed=True))
    lines.append(Line("mean-ablated", ends, [100 * floor] * 2, dashed=True))
    return Section(
        title="Neurons as sparse sets of texts",
        source="2406.04341, Figure 4",
        text=f"In layer {result['layer']} every neuron's direction is replaced by its "
        "reconstruction from m texts (orthogonal matching pursuit), and "
        f"{result['count']:,} images are classified from what then results.{by.note}",
        parts=[
            Figure(
                line_chart(lines, "texts a neuron (m)", by.axis, ticks=ticks),
                "Between no second-order effects at all and the first component of each.",
            ),
            conditions_table(
                " by texts a neuron",
                by,
                rows,
                names | {"first component": "first component"},
            ),
        ],
        claims=claims(result, by),
    )


def claims(result: Mapping, by: Metric) -> list[Claim]:
    """More texts keep more, and few are enough."""
    found = []
    for pool, entry in result["pools"].items():
        figures = entry["figures"]
        sizes = [int(name.split()[0]) for name in figures if name.endswith(" texts")]
        ceiling = by(figures["first component"])[0]
        floor, interval = by(figures["all effects mean-ablated"])
        decided = ceiling > interval[1]
        first, last = (by(figures[f"{m} texts"]) for m in (sizes[0], sizes[-1]))
        share = (last[0] - floor) / (ceiling - floor) if decided else 0.0
        found.append(
            Claim(
                f"{sizes[-1]} texts from {pool} say nearly all that a neuron's direction does.",
                share >= 0.8 if decided else None,
                f"{spread(*first)} with {sizes[0]} texts, "
                f"{spread(*last)} with {sizes[-1]}; the first component gives "
                f"{percent(ceiling)}, ablation {percent(floor)}"
                + (f": {percent(share, 0)} % of the way." if decided else "."),
            )
        )
    return found


EXPERIMENT = Experiment("sparse texts", ("vit",), ("images", "pools"), measure, report)
