"""What the tab opens with: what an address asks for, or a picture that is misread."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import parse_qs

from PIL import Image

from clipneurons.synthetic.captions import COLOURS
from tabs.edit.edits import edit_of_link, edit_of_text
from tabs.edit.reading import TEMPLATES, Reading, read
from tabs.server.session import BundleSession
from tabs.ui.words import names_of

_TRIED = 24  # gallery pictures


def given_or_example(
    session: BundleSession, image: Image.Image | None, names: str, wanted: str, edit: str
) -> Reading:
    """What an endpoint was asked to read; without a picture, the bundle's example."""
    asked = names_of(names)
    if image is not None:
        return read(session, [image], asked, wanted, edit_of_text(edit))
    picture, known, true = example(session)
    return read(
        session, [gallery_image(session, picture)], asked or known,
        wanted or ("" if asked else true), edit_of_text(edit), picture,
    )  # fmt: skip


def restored(session: BundleSession, query: str) -> Reading:
    """What an address asks for; the example where it names no picture."""
    given = {name: values[0] for name, values in parse_qs(query.lstrip("?")[:2000]).items()}
    names, wanted = names_of(given.get("names", "")), given.get("wanted", "")
    asked = given.get("picture", "")
    picture = int(asked) if re.fullmatch(r"[0-9]{1,9}", asked) else None
    if picture is None or len(names) < 2:
        chosen, known, true = example(session)
        picture = chosen if picture is None else picture
        names, wanted = (names, wanted) if len(names) > 1 else (known, true)
    edit = edit_of_link(given.get("edit", ""), session)
    return read(
        session, [gallery_image(session, picture)], names,
        wanted if wanted in names else "", edit, picture,
    )  # fmt: skip


def gallery_image(session: BundleSession, picture: int) -> Image.Image:
    """A picture of the bundle's gallery; `ValueError` for one that is not there."""
    if picture not in set(session.bundle.examples):
        raise ValueError(f"This bundle has no picture {picture}.")
    return session.image(picture)


def example(session: BundleSession) -> tuple[int, list[str], str]:
    """A gallery picture that is misread, class names, and what it should be; chosen once.

    Of pictures whose caption names a class, of one class before those of several, the one whose
    true class the model puts behind another by least; without such captions the one that is read
    with least margin.
    """
    return session.cached("edit example", lambda: _choose_example(session))


def _says(caption: str, name: str) -> bool:
    """Whether a caption has a name as whole words: a pattern is made of few of 30,000 names."""
    return name in caption and bool(re.search(rf"\b{re.escape(name)}\b", caption))


def _told(caption: str, known: Sequence[str]) -> list[str]:
    """The names that a caption has, but for colours: an orange peanut is no orange."""
    return [name for name in known if name not in COLOURS and _says(caption, name)]


def _choose_example(session: BundleSession) -> tuple[int, list[str], str]:
    from clipneurons.text.embedding import embed_texts

    numbers = session.sample(_TRIED)
    if not numbers:
        raise ValueError("This bundle has no pictures: send your own.")
    known = session.bundle.config.data.class_names or tuple(session.bundle.texts)
    captions = [f" {session.bundle.examples.caption(number)} " for number in numbers]
    told = [_told(caption, known) for caption in captions]
    names = list(dict.fromkeys(name for mine in told for name in mine))
    if len(names) < 6:
        names = list(dict.fromkeys([*names, *known]))[:64]
    cosines = session.encode_thumbnails(numbers) @ embed_texts(session.clip, names, TEMPLATES).T
    best: tuple[bool, float, int, list[int], int] | None = None
    for i, mine in enumerate(told):
        order = cosines[i].argsort(descending=True).tolist()
        true = [names.index(name) for name in mine]
        if true and order[0] not in true:
            wanted = next(place for place in order if place in true)
            behind = float(cosines[i, order[0]] - cosines[i, wanted])
            found = (len(true) > 1, behind, i, order, wanted)
            best = found if best is None else min(best, found)
    if best is None:
        pair = cosines.topk(2, dim=1).values
        i = int((pair[:, 0] - pair[:, 1]).argmin())
        order = cosines[i].argsort(descending=True).tolist()
        best = (False, 0.0, i, order, order[1])
    *_, i, order, wanted = best
    chosen = list(dict.fromkeys([*order[:5], wanted]))
    return numbers[i], [names[place] for place in chosen], names[wanted]
