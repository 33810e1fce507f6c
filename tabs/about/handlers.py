"""Events of the tab "About": another bundle, and the endpoint."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import gradio as gr

from tabs.about.drawing import method_drawing
from tabs.about.layout import Widgets, layout
from tabs.about.view import card_text, limits_text, overview_html
from tabs.server.events import PRIVATE
from tabs.server.handlers import handler
from tabs.server.registry import BundleRegistry


@dataclass(frozen=True)
class Tab:
    """The bundles, and the components that a handler's updates are for."""

    registry: BundleRegistry
    widgets: Widgets


def build(registry: BundleRegistry, source: gr.Dropdown) -> None:
    """Components and events; `source` holds the key of the chosen bundle."""
    tab = Tab(registry, layout(registry.first))
    w = tab.widgets
    gr.api(handler(registry, about), api_name="about")
    source.change(
        handler(tab, bundle_changed), [source], [w.drawing, w.overview, w.limits, w.card], **PRIVATE
    )


def bundle_changed(tab: Tab, bundle: str) -> dict:
    """Another bundle was chosen."""
    w, session = tab.widgets, tab.registry[bundle]
    return {
        w.drawing: method_drawing(session.bundle.config.kind),
        w.overview: overview_html(session),
        w.limits: limits_text(session),
        w.card: card_text(session),
    }


def about(registry: BundleRegistry, bundle: str) -> dict:
    """What a bundle is: its configuration, measured figures and model card.

    Args:
        bundle: key of the bundle, or "" for the one the page opens with.
    """
    session = registry[bundle]
    config = asdict(session.bundle.config)
    return {"config": config, "metrics": session.bundle.metrics, "card": session.bundle.card}
