from dataclasses import replace

from tabs.ui.model_line import model_line
from tests.helpers.tiny import tiny_bundle

MODEL = """# A bundle

## Limits

Of the bundle.

## The model

### small: a CLIP

#### Data

Every **picture** was drawn (`NOTICE` says by whom): some 400 things & more.

#### Limits

Only drawings: photographs are misread. """


def test_what_the_models_card_says_of_its_training_and_limits_is_shown():
    line = model_line("small · scenes", replace(tiny_bundle(), card=MODEL + "x" * 300))
    assert "<b>small · scenes</b>: 32 neurons read over 20 images in 8 texts." in line
    assert "Every picture was drawn: some 400 things &amp; more." in line
    assert "Only drawings: photographs are misread." in line
    assert "Of the bundle" not in line
    assert "xxx" not in line, "a line, not the whole card"


def test_without_a_model_card_nothing_is_said_of_it():
    line = model_line("<b> · x", tiny_bundle())
    assert "Its" not in line
    assert "&lt;b&gt; · x" in line


def test_a_strangers_card_is_text():
    card = MODEL.replace("Only drawings", "<script>alert(1)</script>Only [a](javascript:x)")
    assert "<script" not in model_line("t", replace(tiny_bundle(), card=card))
