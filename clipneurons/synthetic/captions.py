"""Words for composed scenes: colours, backgrounds, places, and captions that use them."""

import colorsys
from dataclasses import dataclass

import numpy as np

COLOURS = {
    "red": (215, 40, 40), "orange": (240, 140, 40), "yellow": (245, 215, 60),
    "green": (60, 160, 70), "blue": (55, 100, 210), "purple": (135, 70, 175),
    "pink": (240, 150, 185), "brown": (130, 85, 50), "black": (25, 25, 25),
    "gray": (135, 135, 135), "white": (250, 250, 250),
}  # fmt: skip
BACKGROUNDS = ("solid", "gradient", "stripes", "checker", "noise")
PATTERNS = {"solid": "plain", "gradient": "gradient", "stripes": "striped",
            "checker": "checkered", "noise": "noisy"}  # fmt: skip
RELATIONS = ("left of", "right of", "above", "below")
OPENINGS = (
    "",
    "",
    "a picture of ",
    "a drawing of ",
    "an icon of ",
    "an image of ",
    "a pictogram of ",
)
# What a plain zero-shot prompt looks like; the evaluation averages over these.
PROMPTS = ("{}", "a picture of {}", "a drawing of {}", "an icon of {}")


def article(word: str) -> str:
    """The word with its indefinite article."""
    return f"{'an' if word[:1] in 'aeiou' and not word.startswith('uni') else 'a'} {word}"


def colour_word(rgb) -> str:
    """The plain name of a colour (three numbers from 0 to 255)."""
    hue, light, saturation = colorsys.rgb_to_hls(*(float(c) / 255 for c in rgb))
    chroma = saturation * (1 - abs(2 * light - 1))
    if chroma < 0.15:
        return "black" if light < 0.22 else "white" if light > 0.85 else "gray"
    degrees = hue * 360
    if degrees < 18 or degrees >= 335:
        return "pink" if light > 0.7 else "red"
    if degrees < 45:
        return "brown" if light < 0.42 else "orange"
    for limit, name in ((70, "yellow"), (165, "green"), (255, "blue"), (295, "purple")):
        if degrees < limit:
            return name
    return "pink"


@dataclass(frozen=True)
class Facts:
    """What a caption says: objects' words, their colours (or None), how the first two lie, and
    the background's pattern and colour (or None)."""

    objects: tuple[str, ...]
    colours: tuple[str | None, ...]
    relation: str | None = None
    background: tuple[str, str] | None = None


def write_caption(facts: Facts, rng: np.random.Generator) -> str:
    """One sentence that says exactly these facts."""
    things = [
        article(f"{colour} {word}" if colour else word)
        for word, colour in zip(facts.objects, facts.colours, strict=True)
    ]
    if len(things) > 1 and facts.relation:
        first = f"{things[0]} {facts.relation} {things[1]}"
        text = " and ".join([first, *things[2:]])
    else:
        text = " and ".join([", ".join(things[:-1]), things[-1]] if things[1:] else things)
    text = OPENINGS[rng.integers(len(OPENINGS))] + text
    if facts.background:
        pattern, colour = facts.background
        word = PATTERNS[pattern] + " " if pattern != "solid" else ""
        text += f" on {article(f'{colour} {word}background')}"
    return text
