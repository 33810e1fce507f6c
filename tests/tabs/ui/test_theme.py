"""In the dark, what is not chosen is seen and no track glares."""

import re

from tabs.ui.theme import css, theme


def colours(dark: bool) -> dict[str, str]:
    """The theme's variables in the light or in the dark, without references."""
    values: dict[str, str] = {}
    for selector, body in re.findall(r"([^{}]+)\{([^{}]*)\}", theme()._get_theme_css()):
        if dark or ".dark" not in selector:
            values |= dict(re.findall(r"--([\w-]+):\s*([^;]+);", body))

    def resolved(value: str) -> str:
        while found := re.fullmatch(r"var\(--([\w-]+)\)", value):
            value = values[found[1]]
        return value

    return {name: resolved(value) for name, value in values.items()}


def luminance(colour: str) -> float:
    """Of WCAG 2, of a colour written as #rrggbb."""
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return sum(w * s for w, s in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_rings_of_what_is_not_chosen_stand_out():
    for dark in (False, True):
        found = colours(dark)
        for ground in ("body-background-fill", "checkbox-background-color"):
            # WCAG asks 3 for parts of controls.
            assert contrast(found["checkbox-border-color"], found[ground]) >= 3, (dark, ground)


def test_the_rest_of_a_sliders_track_does_not_glare():
    found = re.search(r"\.dark input\[type=range\] \{ --neutral-200: (#\w{6});", css())
    ground = colours(dark=True)["body-background-fill"]
    assert 1.5 < contrast(found[1], ground) < 4
