"""The page counts verdicts by model, and those that a training asked for apart."""

import json
import re

import pytest

from clipneurons.shipped import ARTIFACTS
from research.papers.command import experiments, trained_for
from research.papers.page import render
from research.papers.types import LATE_CLASS_TOKEN, VERDICTS, Claim


@pytest.mark.parametrize(
    ("holds", "verdict"),
    [(True, "holds by construction"), (False, "does not hold"), (None, "not decided")],
)
def test_only_what_holds_holds_by_construction(holds, verdict):
    claim = Claim("Late layers matter.", holds, "", LATE_CLASS_TOKEN)
    assert claim.verdict([LATE_CLASS_TOKEN]) == verdict
    assert claim.verdict() == verdict.replace(" by construction", "")
    assert Claim("Few matter.", holds, "").verdict([LATE_CLASS_TOKEN]) == claim.verdict()


def counts(page: str, model: str) -> dict[str, int]:
    """The row of a model in the table at the top of the page."""
    row = re.search(rf'<tr><td><a href="#{model}">.*?</tr>', page)[0]
    return dict(zip(VERDICTS, map(int, re.findall(r'<td class="n">(\d+)</td>', row)), strict=True))


def test_verdicts_are_counted_at_the_top():
    results = json.loads((ARTIFACTS / "report" / "results.json").read_text())
    chosen = {e.name: e for e in experiments(None)}
    for bundle in results["bundles"].values():
        bundle["trained_for"] = []
    plain = render(results, chosen)
    results["bundles"]["mini-vit"]["trained_for"] = [LATE_CLASS_TOKEN]
    asked = render(results, chosen)
    before, after = counts(plain, "mini-vit"), counts(asked, "mini-vit")
    moved = after["holds by construction"]
    assert before["holds by construction"] == 0
    assert before["holds"] - after["holds"] == moved
    assert sum(before.values()) == sum(after.values()) > 10
    late = [
        claim
        for name, entry in results["bundles"]["mini-vit"]["experiments"].items()
        for claim in chosen[name].report(entry["result"]).claims
        if claim.follows_from
    ]
    assert len(late) == 3
    assert moved == sum(claim.holds is True for claim in late)
    assert counts(plain, "mini-rn") == counts(asked, "mini-rn")


def test_what_a_training_asked_for_stands_in_the_models_card(tmp_path):
    assert trained_for(tmp_path) == []
    card = tmp_path / "MODEL.md"
    card.write_text(f"---\nlicense: mit\ntrained_for: [{LATE_CLASS_TOKEN}]\n---\nA model.\n")
    assert trained_for(tmp_path) == [LATE_CLASS_TOKEN]
    card.write_text("A model without metadata.\n")
    assert trained_for(tmp_path) == []
