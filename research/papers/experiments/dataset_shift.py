"""Dataset shift: is it noticed, and what do the units say it is (2509.19943, Section 5)."""

from __future__ import annotations

from collections.abc import Mapping

from export.common.numbers import percent
from research.papers.charts import Bar, bar_chart
from research.papers.context import EvaluationContext
from research.papers.types import Claim, Experiment, Figure, Section, Table
from research.shift import power as shift_power

TESTS = ("ours", "MMD", "classifier")
LOCALISED = "named by localisation"


def measure(context: EvaluationContext) -> dict:
    """Power of the tests and naming rates on composed scenes, by the command's own code."""
    options = context.options
    chosen = shift_power.PowerOptions(
        options.shift_runs, (options.shift_size,), options.shift_pool, marks=4, permutations=100
    )
    found = shift_power.measure_on(context.bundle, context.clip, chosen)
    return found | {"size": options.shift_size}


def report(result: Mapping) -> Section:
    """Power by shift, with the rate of false alarms, and what was named."""
    size = result["size"]
    cells = {name.removesuffix(f" {size}"): cell for name, cell in result["cells"].items()}
    bars = [
        Bar(f"{shift}, {test}", 100 * cell[test], None, number)
        for shift, cell in cells.items()
        for number, test in enumerate(TESTS)
    ]
    columns = [*TESTS, "named", "named by mean embedding", LOCALISED]
    named = {s: c for s, c in cells.items() if c.get("named") is not None}
    ours = [cell["named"] for cell in named.values()]
    plain = [cell["named by mean embedding"] for cell in named.values()]
    localised = [
        c[LOCALISED] for s, c in named.items() if s.startswith("mark:") and c["ours"] >= 0.5
    ]
    alarm = cells["none"]["ours"]
    power = {s: c["ours"] for s, c in cells.items() if s != "none"}
    noticed = sum(power.values()) / len(power)
    return Section(
        title="Dataset shift, noticed and named",
        source="2509.19943, Section 5",
        text=f"Two samples of {size} scenes, the second with a known change: another drawing "
        "style, another background, more vehicles, or a watermark on a share of the images. The "
        "units' mean contributions are compared by permutation tests, and read in words; where "
        "images differ most, the place is cut out and read by itself.",
        parts=[
            Figure(
                bar_chart(bars, "runs with p at most 0.05, %", groups=TESTS),
                "Power of the tests; under none it is the rate of false alarms.",
            ),
            Table(
                "Shares of runs in per cent; named: a planted thing is among the first five words.",
                ["shift", "runs", *columns],
                [
                    [
                        shift,
                        str(cell["runs"]),
                        *("" if cell.get(c) is None else percent(cell[c], 0) for c in columns),
                    ]
                    for shift, cell in cells.items()
                ],
            ),
        ],
        claims=[
            Claim(
                "Comparing the units' contributions notices a shift.",
                noticed > 2 * max(alarm, 0.05),
                f"{percent(noticed, 0)} % of the shifts are noticed, with "
                f"{percent(alarm, 0)} % false alarms.",
            ),
            Claim(
                "The units' words name it.",
                sum(ours) > sum(plain),
                f"What was planted is named in {percent(sum(ours) / len(ours), 0)} % of the runs, "
                f"by the mean embedding in {percent(sum(plain) / len(plain), 0)} %."
                if ours
                else "Nothing was planted.",
            ),
            Claim(
                "A closer look names watermarks that are noticed.",
                min(localised) >= 0.8 if localised else None,
                f"Named in {percent(sum(localised) / len(localised), 0)} % of the runs."
                if localised
                else "No watermark is noticed in half of the runs.",
            ),
        ],
    )


EXPERIMENT = Experiment(
    "dataset shift", ("resnet",), ("shift_runs", "shift_size", "shift_pool"), measure, report
)
