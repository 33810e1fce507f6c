"""What the About tab says of a bundle."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tabs.about.drawing import method_drawing
from tabs.about.view import card_text, limits_text, overview_html
from tabs.server.session import BundleSession
from tests.helpers.tiny import tiny_bundle

ROWS = "".join(f"| {i} | <b>{i}</b> |\n" for i in range(20))
CARD = f"""---
license: mit
---
# A bundle

| | |
|---|---|
| model | x |

| layer | accuracy |
|---|---|
{ROWS}
## Limits

Of the words.

## The model

#### Limits

Of the model.

#### More

Else.
"""


@pytest.fixture
def session():
    return BundleSession("tiny", Path("none"), replace(tiny_bundle(), card=CARD))


def test_long_tables_are_folded_and_short_ones_are_not(session):
    text = card_text(session)
    assert "license" not in text
    assert text.count("<details>") == 1
    folded = text[text.index("<details>") : text.index("</details>")]
    assert folded.startswith("<details><summary>20 rows: layer · accuracy</summary>\n\n| layer")
    assert ROWS.strip().replace("<", "&lt;") in folded
    assert "| model | x |" in text[: text.index("<details>")]


def test_limits_are_those_of_the_words_and_of_the_model(session):
    assert limits_text(session) == "### Limits\n\nOf the words.\n\nOf the model."
    without = BundleSession("tiny", Path("none"), tiny_bundle())
    assert limits_text(without) == ""


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_the_drawings_for_wide_and_narrow_pages_are_images_with_a_name(kind):
    across, down = ElementTree.fromstring(method_drawing(kind)).findall("svg")
    for svg in (across, down):
        assert svg.get("role") == "img"
        assert svg.get("aria-label") == svg.findtext("title")
        width, height = map(int, svg.get("viewBox").split()[2:])
        boxes = list(svg.iter("rect"))
        assert max(float(box.get("x")) + float(box.get("width")) for box in boxes) < width
        assert max(float(box.get("y")) + float(box.get("height")) for box in boxes) < height
    said = [[text.text for text in svg.iter("text")] for svg in (across, down)]
    assert sorted(said[0]) == sorted(said[1])


def test_what_was_not_measured_is_said(session):
    page = overview_html(session)
    assert "python -m research concepts does" in page
    assert "32" in page
