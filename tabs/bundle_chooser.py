"""The top of the page: which bundle is shown, and opening another from the Hugging Face Hub."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from tabs.server.messages import user_errors
from tabs.server.registry import BundleRegistry

_LANE = {"concurrency_id": "hub", "concurrency_limit": 1}


@dataclass(frozen=True)
class Chooser:
    """The chosen bundle's key, and the field for a name on the Hub."""

    source: gr.Dropdown
    name: gr.Textbox


def shown(registry: BundleRegistry, key: str):
    """An update of the drop-down that offers what there is now and shows `key`."""
    return gr.update(choices=registry.choices, value=key, visible=len(registry.choices) > 1)


def build(registry: BundleRegistry) -> Chooser:
    """Components and, where the owner allows it, the events that open a bundle from the Hub."""
    hub = registry.hub_cache is not None
    with gr.Row(elem_classes="cn-search", visible=hub or len(registry.choices) > 1):
        source = gr.Dropdown(
            registry.choices, value=registry.first.key, label="Model and data", elem_id="bundle",
            filterable=False, visible=len(registry.choices) > 1, scale=4, min_width=220,
        )  # fmt: skip
        # Gradio would refuse "" (the first) and what was opened since; the registry knows better.
        source.preprocess = lambda key: key if isinstance(key, str) else None
        source.api_info = lambda: {"type": "string"}
        name = gr.Textbox(
            label="Open another from the Hugging Face Hub", elem_id="hub-name", visible=hub,
            placeholder="user/name or user/name@revision", max_lines=1, max_length=250, scale=4,
            min_width=220,
        )  # fmt: skip
        go = gr.Button("Open", elem_id="hub-open", visible=hub, scale=1, min_width=90)
    if hub:
        _events(registry, name, go)
    return Chooser(source, name)


def _events(registry: BundleRegistry, name: gr.Textbox, go: gr.Button) -> None:
    key = gr.Textbox(elem_classes="offstage", label="Opened bundle")

    @user_errors
    def opened(name: str) -> str:
        if not name.strip():
            raise ValueError("Write which repository to open, such as user/name.")
        name = name.strip()
        return name if name in registry.sessions else registry.hub_cache.open(name).key

    def open_bundle(name: str) -> dict:
        """Fetch a bundle from the Hugging Face Hub, so that the other endpoints can be asked of it.

        Args:
            name: "user/name" or "user/name@revision" of a public repository.

        Returns its key for the parameter `bundle`, its layers and how many units each has. The
        server keeps few of these: open it again when it says that it is not open.
        """
        key = opened(name)
        units = {str(k): len(v.directions) for k, v in registry[key].bundle.layers.items()}
        return {"bundle": key, "title": registry[key].title, "units": units}

    gr.api(open_bundle, api_name="open", **_LANE)
    gr.on(
        [go.click, name.submit], opened, [name], [key], show_progress_on=[name],
        api_visibility="private", **_LANE,
    ).success(None, [key], js="(key) => window.cnOpen(key)")  # fmt: skip
