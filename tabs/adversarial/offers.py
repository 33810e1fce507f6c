"""What this server offers to describe and to paint with, loaded once a model."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tabs.server.session import BundleSession

if TYPE_CHECKING:
    from clipneurons.adversarial.descriptions import Describer
    from clipneurons.adversarial.image_generator import ImageGenerator

# The server's owner may offer these; a visitor never names a model.
CHAT_MODEL, PAINTER_MODEL = "CLIPNEURONS_CHAT", "CLIPNEURONS_PAINTER"
TEMPLATES, PICTOGRAMS = "templates", "pictograms"


def describers() -> list[str]:
    """Ways to describe that this server offers."""
    chat = os.environ.get(CHAT_MODEL)
    return [TEMPLATES, chat] if chat else [TEMPLATES]


def painters() -> list[str]:
    """Ways to paint that this server offers."""
    model = os.environ.get(PAINTER_MODEL)
    return [PICTOGRAMS, model] if model else [PICTOGRAMS]


def composer(session: BundleSession):
    """The offline painter for a session's model, made once."""
    from clipneurons.adversarial.pictogram_generator import pictogram_composer

    return session.cached("composer", lambda: pictogram_composer(max(session.clip.image_size)))


def painter_of(session: BundleSession, name: str) -> ImageGenerator:
    """A painter that this server offers, loaded once."""
    offered(name, painters(), "painter")
    if name == PICTOGRAMS:
        return composer(session)
    from clipneurons.adversarial.image_generator import DiffusersGenerator

    return session.cached("painter", lambda: DiffusersGenerator(name))


def describer_of(session: BundleSession, name: str, cues_each: int) -> Describer:
    """A describer that this server offers, loaded once."""
    from clipneurons.adversarial.descriptions import TemplateDescriber

    offered(name, describers(), "describer")
    if name == TEMPLATES:
        return TemplateDescriber(int(cues_each))
    from clipneurons.adversarial.chat import ChatDescriber

    return session.cached("chat", lambda: ChatDescriber(name, similarity=similarity_of(session)))


def similarity_of(session: BundleSession):
    """What finds synonyms for a session: the sentence encoder where it is installed."""
    from clipneurons.text.similarity import best_similarity

    def make():
        return best_similarity(session.clip, session.bundle.text_embeddings)

    return session.cached("similarity", make)


def offered(name: str, choices: list[str], what: str) -> None:
    """Raise ValueError unless the name is one of the choices."""
    if name not in choices:
        raise ValueError(f"This server offers the {what}s {', '.join(choices)}, not {name!r}.")
