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


def test_what_was_measured_is_said_and_a_strangers_figures_are_not_believed():
    bundle = tiny_bundle()
    height, width = bundle.config.image_size
    assert f"sees pictures at {width} × {height} pixels." in model_line("t", bundle)
    fidelity = {
        "images": "<b>photographs", "count": 1611, "classes": 460, "baseline": {"accuracy": 0.2185}
    }  # fmt: skip
    line = model_line("t", replace(bundle, metrics={"fidelity": fidelity}))
    assert "names 22 % of 1,611 pictures (&lt;b&gt;photographs) rightly among 460 classes." in line
    for wrong in ([], {}, fidelity | {"count": "many"}, fidelity | {"baseline": None}):
        line = model_line("t", replace(bundle, metrics={"fidelity": wrong}))
        assert "rightly" not in line


def test_without_a_model_card_nothing_is_said_of_it():
    line = model_line("<b> · x", tiny_bundle())
    assert "Its" not in line
    assert "&lt;b&gt; · x" in line


def test_a_sentence_is_cut_only_where_it_is_too_long():
    second = f"Right as the table says; {'often wrong, ' * 15}else."
    whole = MODEL.replace("photographs are misread.", f"small ones. {second}")
    assert "</b> Only drawings: small ones.</p>" in model_line(
        "t", replace(tiny_bundle(), card=whole)
    )
    long = MODEL.replace("photographs are misread.", f"small ones; {'often wrong, ' * 15}else.")
    assert "</b> Only drawings: small ones.</p>" in model_line(
        "t", replace(tiny_bundle(), card=long)
    )


def test_a_strangers_card_is_text():
    card = MODEL.replace("Only drawings", "<script>alert(1)</script>Only [a](javascript:x)")
    assert "<script" not in model_line("t", replace(tiny_bundle(), card=card))
