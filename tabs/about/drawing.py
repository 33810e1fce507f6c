"""The method as a drawing: from a picture through one neuron and later heads to words."""

from __future__ import annotations

_TITLE = {
    "vit": "A patch of the picture drives a neuron; heads of later layers carry what it writes "
    "into the image’s embedding, always in one direction, which is read as words.",
    "resnet": "Places of the picture drive a neuron of the last stage; each head of the attention "
    "pooling writes it into the embedding in one direction, which is read as words.",
}
# First and second line of the boxes after the picture.
_BOXES = {
    "vit": (("one neuron", "of an MLP, layer l"), ("attention heads", "of later layers"),
            ("one direction r", "in CLIP’s space")),
    "resnet": (("one neuron", "of the last stage"), ("one head of", "the pooling"),
               ("one direction r", "in CLIP’s space")),
}  # fmt: skip
# Beside the arrows: what each step takes.
_STEPS = tuple(enumerate(("its activation", "their attention", "the weights", "texts")))
_WORDS = ("“a cat,", "whiskers,", "−water”")


def method_drawing(kind: str) -> str:
    """An SVG in the page's colours, and one from top to bottom for narrow pages; `kind` is that of
    the bundle's model."""
    across = _svg(kind, "cn-across", (900, 180), _across(kind))
    return f"<div>{across}{_svg(kind, 'cn-down', (300, 632), _down(kind))}</div>"


def _svg(kind: str, name: str, size: tuple[int, int], drawn: str) -> str:
    title, (width, height) = _TITLE[kind], size
    return (
        f'<svg class="cn-method {name}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{title}">'
        f"<title>{title}</title>{drawn}</svg>"
    )


def _across(kind: str) -> str:
    boxes = (_box(204 + 196 * step, 58, *lines) for step, lines in enumerate(_BOXES[kind]))
    arrows = (_arrow(150 + 196 * step, 91) for step in range(4))
    notes = (_text(175 + 196 * step, 168, note, "cn-small", "middle") for step, note in _STEPS)
    words = (_text(798, 74 + 22 * row, word) for row, word in enumerate(_WORDS))
    return "".join((_picture(24, 30), *boxes, *arrows, *notes, *words))


def _down(kind: str) -> str:
    boxes = (_box(82, 190 + 124 * step, *lines) for step, lines in enumerate(_BOXES[kind]))
    arrows = (_arrow(135 + 124 * step, 150, down=True) for step in range(4))
    notes = (_text(166, 164 + 124 * step, note, "cn-small") for step, note in _STEPS)
    words = (_text(150, 580 + 22 * row, word, anchor="middle") for row, word in enumerate(_WORDS))
    return "".join((_picture(91, 6), *boxes, *arrows, *notes, *words))


def _picture(left: int, top: int) -> str:
    """Patches, of which a few light up."""
    lit = {(1, 1): 1.0, (1, 2): 0.8, (2, 1): 0.5, (2, 2): 0.9}
    patches = "".join(
        f'<rect x="{left + 30 * column}" y="{top + 30 * row}" width="28" height="28" rx="2" '
        f'class="cn-patch" style="--lit:{lit.get((row, column), 0.08)}"/>'
        for row in range(4)
        for column in range(4)
    )
    return f"<g>{patches}</g>"


def _box(x: int, y: int, first: str, second: str) -> str:
    return (
        f'<rect x="{x}" y="{y}" width="136" height="66" rx="6" class="cn-step"/>'
        + _text(x + 68, y + 28, first, "cn-strong", "middle")
        + _text(x + 68, y + 49, second, "cn-small", "middle")
    )


def _text(x: int, y: int, text: str, style: str = "", anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" class="{style}">{text}</text>'


def _arrow(start: int, beside: int, down: bool = False) -> str:
    """50 long, across at height `beside` or down at that place."""
    end = start + 50
    turn = ' transform="matrix(0 1 1 0 0 0)"' if down else ""
    return (
        f'<g class="cn-arrow"{turn}><path d="M{start} {beside}H{end}"/>'
        f'<path d="M{end - 8} {beside - 6}L{end} {beside}L{end - 8} {beside + 6}"/></g>'
    )
