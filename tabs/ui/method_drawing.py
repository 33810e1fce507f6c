"""The method as a drawing: from a picture through one neuron and later heads to words."""

from __future__ import annotations

_TITLE = {
    "vit": "A patch of the picture drives a neuron; heads of later layers carry what it writes "
    "into the image’s embedding, always in one direction, which is read as words.",
    "resnet": "Places of the picture drive a neuron of the last stage; each head of the attention "
    "pooling writes it into the embedding in one direction, which is read as words.",
}
# x, width, first line, second line of the boxes after the picture.
_BOXES = {
    "vit": ((206, 120, "one neuron", "of an MLP, layer l"), (386, 128, "attention heads",
            "of later layers"), (574, 124, "one direction r", "in CLIP’s space")),
    "resnet": ((206, 120, "one neuron", "of the last stage"), (386, 128, "one head of",
               "the pooling"), (574, 124, "one direction r", "in CLIP’s space")),
}  # fmt: skip
# Below the arrows: what each step takes.
_NOTES = ((175, "its activation"), (355, "their attention"), (543, "the weights"), (727, "texts"))


def method_drawing(kind: str) -> str:
    """An SVG in the page's colours; `kind` is that of the bundle's model."""
    boxes = "".join(_box(*one) for one in _BOXES[kind])
    arrows = "".join(_arrow(*ends) for ends in ((150, 200), (330, 380), (518, 568), (702, 752)))
    notes = "".join(
        f'<text x="{x}" y="168" text-anchor="middle" class="cn-small">{text}</text>'
        for x, text in _NOTES
    )
    return (
        f'<div class="cn-scroll"><svg class="cn-method" viewBox="0 0 900 180" role="img" '
        f'aria-label="{_TITLE[kind]}"><title>{_TITLE[kind]}</title>{_picture()}{boxes}{arrows}'
        f'<text x="760" y="72">“a cat,</text><text x="760" y="94">whiskers,</text>'
        f'<text x="760" y="116">−water”</text>{notes}</svg></div>'
    )


def _picture() -> str:
    """Patches, of which a few light up."""
    lit = {(1, 1): 1.0, (1, 2): 0.8, (2, 1): 0.5, (2, 2): 0.9}
    patches = "".join(
        f'<rect x="{24 + 30 * column}" y="{30 + 30 * row}" width="28" height="28" rx="2" '
        f'class="cn-patch" style="--lit:{lit.get((row, column), 0.08)}"/>'
        for row in range(4)
        for column in range(4)
    )
    return f"<g>{patches}</g>"


def _box(x: int, width: int, first: str, second: str) -> str:
    middle = x + width / 2
    return (
        f'<rect x="{x}" y="58" width="{width}" height="66" rx="6" class="cn-step"/>'
        f'<text x="{middle}" y="86" text-anchor="middle" class="cn-strong">{first}</text>'
        f'<text x="{middle}" y="107" text-anchor="middle" class="cn-small">{second}</text>'
    )


def _arrow(start: int, end: int) -> str:
    return (
        f'<path d="M{start} 91H{end}" class="cn-arrow"/>'
        f'<path d="M{end - 8} 85L{end} 91L{end - 8} 97" class="cn-arrow"/>'
    )
