"""What the map and the mosaic fetch beside Gradio's own events: data and images, cached."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import gradio as gr
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tabs.explore.atlas import map_data, mosaic_sheet, units_that_see
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tabs.ui.plots import bars
from tabs.ui.units import unit_bar

# A bundle does not change while the page runs; another one may lie there the next time.
_KEPT = {"Cache-Control": "private, max-age=3600"}


def routes(registry: BundleRegistry) -> list[Route]:
    """GET routes; `bundle` is a key, `image` a number of the gallery. 404 for what is not there."""

    def answer(make: Callable[[BundleSession, int], Response]) -> Callable[[Request], Response]:
        def asked(request: Request) -> Response:
            image = request.query_params.get("image", "")
            try:
                session = registry[request.query_params.get("bundle")]
                return make(session, int(image) if image.isdecimal() and len(image) < 10 else -1)
            except (gr.Error, KeyError):
                return Response("not here", 404)

        return asked

    return [
        Route("/explore/map", answer(_map)),
        Route("/explore/mosaic", answer(_mosaic)),
        Route("/explore/image", answer(_image)),
        Route("/explore/seen", answer(_seen)),
    ]


def _map(session: BundleSession, _: int) -> Response:
    return JSONResponse(map_data(session), headers=_KEPT)


def _mosaic(session: BundleSession, _: int) -> Response:
    return Response(mosaic_sheet(session), media_type="image/webp", headers=_KEPT)


def _image(session: BundleSession, image: int) -> Response:
    return Response(session.bundle.examples[image], media_type="image/webp", headers=_KEPT)


def _seen(session: BundleSession, image: int) -> Response:
    """The units that see an image, as a list of links."""
    caption = session.bundle.examples.caption(image) or f"image {image}"
    hits = units_that_see(session, image)
    rows = [
        unit_bar(session.key, session.bundle, hit["layer"], hit["unit"], hit["share"])
        for hit in hits
    ]
    title = f"Units that see “{caption}”"
    body = bars(rows, label=title, most=1.0, wide=True)
    note = "Effect on this image, as a share of the unit’s largest."
    page = f'<h4>{escape(title)}</h4><p class="cn-note">{note}</p>{body}'
    return Response(page, media_type="text/html", headers=_KEPT)
