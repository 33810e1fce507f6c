"""What happens when something in the tab is pressed, chosen or written; and the endpoints.

A handler takes the values of the components and returns the components that change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any, get_type_hints

import gradio as gr

from clipneurons.bundle.unit_words import plain
from tabs.adversarial import view
from tabs.adversarial.attacks import (
    Attack,
    AttackQuery,
    CueQuery,
    baseline_rates,
    cues_of,
    descriptions_of,
    draw,
    method_of,
    pairs_of,
    similarity_of,
)
from tabs.adversarial.layout import Widgets, pair_label
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tabs.ui import plots
from tabs.ui.words import unknown_words_html, untrained

_EXAMPLE = 12  # images of the example that stands there when the tab is opened

Values = Mapping[gr.components.Component, Any]
Updates = dict[gr.components.Component, Any]


# -- endpoints


def endpoint(function: Callable[[BundleRegistry, Any], dict]) -> Callable[..., dict]:
    """A function of the registry and a request, with the request's fields as its parameters."""
    request = get_type_hints(function)["request"]
    hints = get_type_hints(request)

    @wraps(function)
    def call(registry, *values) -> dict:
        return function(registry, request(*values))

    parameters = [
        parameter.replace(annotation=hints[name])
        for name, parameter in signature(request).parameters.items()
    ]
    registry = Parameter("registry", Parameter.POSITIONAL_OR_KEYWORD)
    call.__signature__ = Signature([registry, *parameters], return_annotation=dict)
    call.__annotations__ = hints | {"return": dict}
    return call


@endpoint
def find_cues(registry: BundleRegistry, request: CueQuery) -> dict:
    """Texts that push an image of the true class toward the target class, and away from it.

    Each has its score and the units behind it. Texts that name a class, or mean the target class,
    are dropped, with the reason.

    Args:
        bundle: key of the bundle, or "" for the one the page opens with.
        true_class: what the image shows, such as "cat".
        target_class: what it should be read as, such as "dog".
        method: "second-order" (the paper's), "recorded effects" (thousands of images are read
            once where the bundle has none recorded), or "automatic": recorded effects where the
            bundle has them, else second-order.
        layers: layers to use, such as [8, 9]; by default all of the bundle.
        neurons: number of neurons of "second-order".
        count: number of cues, at most 50.
        blocked: words that no cue may contain, with commas between.
        generator: "pictograms", or the model that this server offers.
    """
    session = registry[request.bundle]
    data = cues_of(session, request).to_dict()
    return data | {
        "synonyms_found_by": similarity_of(session).name,
        "never_trained": untrained(session, request.pair),
    }


@endpoint
def attack(registry: BundleRegistry, request: AttackQuery) -> dict:
    """Make images of the true class with cues of the target class and see how they are read.

    Gives the cues, the success rate with its 95 % interval, those of the control and the
    baselines, and each image (PNG as a data URI) with its description and verdict.

    Args:
        bundle: key of the bundle, or "" for the one the page opens with.
        true_class: what the image shows, such as "cat".
        target_class: what it should be read as, such as "dog".
        method: as for `find_cues`.
        layers: layers to use, such as [8, 9]; by default all of the bundle.
        neurons: number of neurons of "second-order".
        count: number of cues to find, at most 50.
        blocked: words that no cue may contain, with commas between.
        generator: "pictograms", or the model that this server offers.
        cues: your own cues, with commas between; "" finds them.
        images: number of images, at most 60.
        cues_per_image: number of cues in an image, at most 6.
        seed: the same seed gives the same images.
        describer: "templates", or the model that this server offers.
    """
    session = registry[request.bundle]
    cues, method = request.own_cues, ""
    unknown = untrained(session, [*request.pair, *cues])
    if not cues:
        cues, method = cues_of(session, request).texts, method_of(session, request)
    batches = draw(session, request, descriptions_of(session, request, cues))
    outcomes = tuple(outcome for batch in batches for outcome in batch)
    baselines = baseline_rates(session, request, method)
    made = Attack(session.key, *request.pair, method, outcomes)
    return view.attack_data(made, baselines, cues, unknown)


# -- events


def find(
    widgets: Widgets, registry: BundleRegistry, values: Values,
    progress=gr.Progress(),  # noqa: B008  (Gradio finds it there)
) -> Updates:  # fmt: skip
    """The cues of the pair and the units behind them."""
    session, query = _asked(widgets, registry, values)
    updates, _ = _cues(widgets, session, query, progress)
    return updates | _unknown(widgets, session, query)


def make(
    widgets: Widgets, registry: BundleRegistry, values: Values,
    progress=gr.Progress(),  # noqa: B008
) -> Iterator[Updates]:  # fmt: skip
    """Images with verdicts as they are made, then the baselines' rates and a zip."""
    session, query = _asked(widgets, registry, values)
    yield from _make(widgets, session, query, progress)


def make_first(
    widgets: Widgets, registry: BundleRegistry, values: Values,
    progress=gr.Progress(),  # noqa: B008
) -> Iterator[Updates]:  # fmt: skip
    """A few images, where nothing was made yet with this bundle."""
    session = registry.unasked(values[widgets.fields["bundle"]])
    made = values[widgets.made]
    if session is None or (made is not None and made.key == session.key):
        yield {widgets.made: gr.skip()}
        return
    names = _names(widgets, session, values)
    query = widgets.query({**values, **names, widgets.fields["layers"]: []})
    query = replace(query, images=min(query.images, _EXAMPLE))
    for updates in _make(widgets, session, query, progress):
        yield {**names, **updates}


def picked(registry: BundleRegistry, event: gr.SelectData) -> int:
    """The image that was clicked."""
    return int(event.index)


def explain(registry: BundleRegistry, made: Attack | None, index: int | None):
    """Where in the image that was clicked the target class is spoken for."""
    if made is None or index is None:
        return gr.skip()
    overlay = view.mistake_overlay(registry[made.key], made, index)
    label = view.map_label(made, made.outcomes[index])
    return gr.Image(overlay, label=label, visible=True)


def clear(widgets: Widgets, registry: BundleRegistry) -> Updates:
    """Another pair: what the last one gave goes, cues that a visitor wrote stay."""
    emptied = {widgets.unknown: "", widgets.cues: "", widgets.more_cues: ""}
    return emptied | {widgets.made: None, widgets.box: gr.Column(visible=False)}


def change_bundle(widgets: Widgets, registry: BundleRegistry, values: Values) -> Updates:
    """Another bundle's pairs and layers, and nothing of what the last one gave."""
    session = registry[values[widgets.fields["bundle"]]]
    known, made = list(session.bundle.layers), values[widgets.made]
    labels = [gr.Button(pair_label(pair)) for pair in pairs_of(session)]
    updates = dict(zip(widgets.pairs, labels, strict=True))
    updates |= {widgets.fields["layers"]: gr.update(choices=known, value=known)}
    if made is None or made.key != session.key:
        updates |= clear(widgets, registry)
    return updates | _names(widgets, session, values)


def _asked(
    widgets: Widgets, registry: BundleRegistry, values: Values
) -> tuple[BundleSession, AttackQuery]:
    """The session and the request, without layers that the page still shows of another bundle."""
    session = registry[values[widgets.fields["bundle"]]]
    layers = widgets.fields["layers"]
    chosen = {str(layer) for layer in values[layers] or ()}
    own = [layer for layer in session.bundle.layers if str(layer) in chosen]
    return session, widgets.query({**values, layers: own})


def _names(widgets: Widgets, session: BundleSession, values: Values) -> Updates:
    """The visitor's own class names, or the pair this bundle opens with."""
    true, target = widgets.fields["true_class"], widgets.fields["target_class"]
    offered = tuple(values[widgets.offered])
    if (values[true], values[target]) != offered:
        return {true: values[true], target: values[target], widgets.offered: offered}
    pair = pairs_of(session)[0]
    return {true: pair[0], target: pair[1], widgets.offered: pair}


def _make(
    widgets: Widgets, session: BundleSession, query: AttackQuery, progress: gr.Progress
) -> Iterator[Updates]:
    updates = _unknown(widgets, session, query)
    cues, method = query.own_cues, ""
    if cues:
        updates |= {widgets.cues: plots.empty(view.OWN_CUES), widgets.more_cues: ""}
    else:
        found, cues = _cues(widgets, session, query, progress)
        updates |= found
        method = method_of(session, query)
    descriptions = descriptions_of(session, query, cues)
    updates |= {
        widgets.box: gr.Column(visible=True),
        widgets.described: "\n".join(description.text for description in descriptions),
        widgets.saved: gr.DownloadButton(interactive=False),
        widgets.place: gr.Image(value=None, visible=False),
    }
    outcomes: list = []
    for batch in draw(session, query, descriptions):
        outcomes += batch
        progress(len(outcomes) / len(descriptions), desc="images")
        made = Attack(session.key, *query.pair, method, tuple(outcomes))
        yield updates | {
            widgets.made: made,
            widgets.gallery: view.gallery_of(made),
            widgets.rates: view.rates_html(made, {}),
        }
        updates = {}
    rates = baseline_rates(
        session, query, method, lambda share: progress(share, desc="control and baselines")
    )
    yield {
        widgets.rates: view.rates_html(made, rates),
        widgets.saved: gr.DownloadButton(value=view.zip_file(made), interactive=True),
    }


def _unknown(widgets: Widgets, session: BundleSession, query: AttackQuery) -> Updates:
    words = untrained(session, [*query.pair, *query.own_cues])
    return {widgets.unknown: unknown_words_html(words)}


def _cues(
    widgets: Widgets, session: BundleSession, query: AttackQuery, progress: gr.Progress
) -> tuple[Updates, list[str]]:
    """The cues on the page, and as they are drawn."""
    cues = cues_of(
        session, query, progress=lambda share: progress(share, desc="recording cues, once")
    )
    updates = {
        widgets.cues: view.cues_html(session, cues),
        widgets.more_cues: view.more_cues_html(cues, similarity_of(session).name),
    }
    return updates, list(map(plain, cues.texts))
