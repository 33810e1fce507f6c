"""The top of the page: which bundle is shown, and how to see another CLIP's neurons."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from tabs.server.events import PRIVATE
from tabs.server.handlers import handler
from tabs.server.messages import user_errors
from tabs.server.registry import BundleRegistry
from tabs.ui.model_line import model_line
from tabs.ui.plots import html
from tabs.ui.words import MOST_LETTERS

_LANE = {"concurrency_id": "hub", "concurrency_limit": 1}
# What stands there to be copied.
COMMANDS = {
    "Export": "python -m export run --model ViT-B-32 --pretrained openai --images photos/ "
    "--out my-clip",
    "Show": "python app.py --bundle my-clip",
    "Publish": "python -m export publish --bundle my-clip --repo user/name",
}
_OWN = """
1. **Export** it once, over any folder of images: a name that open_clip knows with its weights
   (ViT-B-32, openai), `hf-hub:owner/name`, `owner/name` of a transformers checkpoint, or a folder
   of either. It prints what it will need before it begins, and goes on where it was stopped.
2. **Show** the folder that it wrote. `--bundle` may be repeated: the bundles are then chosen at the
   top of the page.
3. **Publish** it, if others should see it: `--bundle user/name` shows it on any machine.
"""


# Name and line on the model, and the button that copies the address (`page.js`).
_NAME = '<h1 class="cn-brand"><a href="?tab=explore">clipneurons</a></h1>'
_SHARE = (
    '<button class="cn-copy" type="button" aria-label="Copy link" title="Copy link">'
    '<svg viewBox="0 0 20 20" aria-hidden="true"><path d="M8 12a4 4 0 0 1 0-5l3-3a3.5 3.5 0 0 1 5 5'
    'l-2 2M12 8a4 4 0 0 1 0 5l-3 3a3.5 3.5 0 0 1-5-5l2-2"/></svg><span role="status"></span>'
    "</button>"
)
_PLACEHOLDER = "Search: boat, -water"


@dataclass(frozen=True)
class Top:
    """The line on top: the chosen bundle's key, and what to search its units for."""

    source: gr.Dropdown
    query: gr.Textbox


@dataclass(frozen=True)
class OwnClip:
    """The panel about other models, and its field for a Hub name."""

    panel: gr.Accordion
    name: gr.Textbox


def shown(registry: BundleRegistry, key: str):
    """An update of the drop-down that offers what there is now and shows `key`."""
    return gr.update(choices=registry.choices, value=key)


def about_html(registry: BundleRegistry, key: str) -> str:
    """What the chosen model is and what its limits are, behind an "i"."""
    session = registry[key]
    return (
        '<details class="cn-info"><summary aria-label="About this model">i</summary>'
        f"<div>{model_line(session.title, session.bundle)}</div></details>"
    )


def top(registry: BundleRegistry) -> Top:
    """The line on top: name, model, search, share, and an "i"."""
    with gr.Row(elem_id="top", equal_height=True):
        html(_NAME, elem_id="top-name")
        source = gr.Dropdown(
            registry.choices, value=registry.first.key, label="Model and data", elem_id="bundle",
            filterable=False, show_label=False, container=False, scale=2, min_width=80,
        )  # fmt: skip
        query = gr.Textbox(
            label="Search units by words", show_label=False, placeholder=_PLACEHOLDER,
            elem_id="explore-query", container=False, scale=3, min_width=80, max_lines=1,
            max_length=MOST_LETTERS,
        )  # fmt: skip
        html(_SHARE, elem_id="top-share")
        about = html(about_html(registry, registry.first.key), elem_id="bundle-about")
    # Gradio would refuse "" (the first) and what was opened since; the registry knows better.
    source.preprocess = lambda key: key if isinstance(key, str) else None
    source.api_info = lambda: {"type": "string"}
    source.change(
        handler(registry, about_html), [source], [about], show_progress="hidden", **PRIVATE
    )
    source.input(None, [source], js="(bundle) => window.cnChosen(bundle)", **PRIVATE)
    return Top(source, query)


def own_clip(registry: BundleRegistry) -> OwnClip:
    """How to show another CLIP; on a page for this machine alone, a field that opens one."""
    hub = registry.hub
    with gr.Accordion("Use your own CLIP", open=False, elem_id="own-clip") as panel:
        gr.Markdown(_OWN, elem_classes="cn-text")
        options = dict(interactive=False, buttons=["copy"], lines=1, elem_classes="cn-command")
        for label, command in COMMANDS.items():
            gr.Textbox(command, label=label, **options)
        with gr.Row(elem_classes="cn-search", visible=hub):
            name = gr.Textbox(
                label="Open a published bundle from the Hugging Face Hub", elem_id="hub-name",
                placeholder="user/name or user/name@revision", max_lines=1, max_length=250,
                info="The name of a repository that `export publish` made, not of a model: its "
                "neurons have to be exported first. Nothing is fetched before you press Open.",
                scale=4, min_width=220,
            )  # fmt: skip
            go = gr.Button("Open", elem_id="hub-open", scale=1, min_width=90)
    if hub:
        _events(registry, name, go)
    return OwnClip(panel, name)


def _events(registry: BundleRegistry, name: gr.Textbox, go: gr.Button) -> None:
    key = gr.Textbox(elem_classes="offstage", label="Opened bundle")

    @user_errors
    def opened(name: str) -> str:
        if not name.strip():
            raise ValueError("Write which repository to open, such as user/name.")
        return registry.open(name.strip()).key

    def open_bundle(name: str) -> dict:
        """Fetch a bundle from the Hugging Face Hub, so that the other endpoints can be asked of it.

        Args:
            name: "user/name" or "user/name@revision".

        Returns its key for the parameter `bundle`, its layers and how many units each has.
        """
        key = opened(name)
        units = {str(k): len(v.directions) for k, v in registry[key].bundle.layers.items()}
        return {"bundle": key, "title": registry[key].title, "units": units}

    gr.api(open_bundle, api_name="open", **_LANE)
    gr.on(
        [go.click, name.submit], opened, [name], [key], show_progress_on=[name],
        **PRIVATE, **_LANE,
    ).success(None, [key], js="(key) => window.cnOpen(key)")  # fmt: skip
