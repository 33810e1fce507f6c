"""A comparison of two sets of pictures as HTML: the verdict, words, and its units as choices."""

from __future__ import annotations

from clipneurons.bundle.bundle import Bundle
from tabs.ui.names import named
from tabs.ui.neuron_card import says
from tabs.ui.plots import Bar, bars, figures, folded, link, section

WHOLE = "The whole change"
_SHOWN = 8  # words a list


def verdict_html(data: dict, skipped: int = 0) -> str:
    """Whether the sets differ, how sure that is, and by each statistic in a fold."""
    from clipneurons.shift.reading import LEVEL

    text = "The sets differ" if data["p"] <= LEVEL else "No difference found"
    reference, new = data["counts"]
    note = f"{new} new images against {reference}."
    if skipped:
        note += f" {skipped} files could not be read."
    main = figures(
        [
            (p_text(data["p"]), "p of the comparison", "by permutation, all statistics together"),
            (str(data["changed"]), "units changed", "at a false-discovery rate of 5 %"),
        ]
    )
    each = figures(
        [(p_text(p), name, "one of the combined statistics") for name, p in data["tests"].items()]
    )
    return section(text, main + folded("p-value of each statistic", each), note)


def p_text(p: float) -> str:
    """A p-value; the least that permutations can give is a bound."""
    from clipneurons.shift.reading import PERMUTATIONS

    least = 1 / (PERMUTATIONS + 1)
    return f"≤ {least:.2g}" if p < 1.5 * least else f"{p:.3g}"


def words_html(data: dict) -> str:
    """Words said more and less, and at the place where a change lies."""
    from clipneurons.shift.localisation import where
    from clipneurons.shift.reading import LEVEL

    spread, closer, place = "", "", data["localised"]
    if place is None and data["p"] <= LEVEL:
        text = "No single place of the images differs: the change is spread over them."
        spread = f'<p class="cn-note">{text}</p>'
    if place is not None:
        note = "Where the new images differ most, cut out and read by itself."
        closer = _words(f"A closer look: {where(tuple(place['box']))}", place["words"], note)
    more, less = _words("Said more", data["more"]), _words("Said less", data["less"])
    return f'{spread}<div class="cn-three">{closer}{more}{less}</div>'


def _words(title: str, said: list[dict], note: str = "") -> str:
    rows = [Bar(one["text"], one["score"]) for one in named(said)[:_SHOWN]]
    return section(title, bars(rows, label=title, digits=1), note)


def unit_rows(data: dict, bundle: Bundle) -> list[tuple[str, int]]:
    """The units that changed most as choices with what they say; 0 is the whole change."""
    rows = [(WHOLE, 0)]
    for number, one in enumerate(data["units"], start=1):
        change = f"{one['change']:+.2f}".replace("-", "−")
        words = says(bundle, one["layer"], one["unit"], 3)
        rows.append((f"{change}   {one['layer']} · {one['unit']}   {words}", number))
    return rows


def unit_html(data: dict, place: int, key: str) -> str:
    """What the pictures below are of, with a way into the dictionary."""
    if not place:
        return '<p class="cn-note">New: the pictures that carry the change most.</p>'
    one = data["units"][place - 1]
    card = link(
        f"{one['layer']} · {one['unit']}",
        tab="dictionary", layer=one["layer"], unit=one["unit"], bundle=key,
    )  # fmt: skip
    return (
        f'<p class="cn-note">Pictures in which {card} is strongest; its mean moved by '
        f"{one['change']:+.2f} standard deviations, at a false-discovery rate of "
        f"{one['q']:.2g}.</p>"
    ).replace("by -", "by −")
