"""The page: `python app.py [--bundle FOLDER|USER/NAME ...] [--port 7860] [--mcp]`."""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path

STARTED = time.perf_counter()
# Gradio asks two outside hosts at import unless told not to.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

_PAGES = "clipneurons-page-"


def temporary_folder() -> str:
    """A new folder for uploads and drawn images; those that killed pages left are removed.

    A page holds a lock on its own, which ends with the process, however that ends.
    """
    for old in Path(tempfile.gettempdir()).glob(f"{_PAGES}*"):
        with suppress(OSError):  # in use, another user's, or gone
            if time.time() - old.stat().st_mtime > 60:  # else it may be about to be locked
                handle = os.open(old, os.O_RDONLY)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(old, ignore_errors=True)
                finally:
                    os.close(handle)
    folder = tempfile.mkdtemp(prefix=_PAGES)
    fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX)
    return folder


if __name__ == "__main__":  # uploads and drawn images go with the page; Gradio asks at import
    TEMPORARY = tempfile.tempdir = temporary_folder()
    atexit.register(shutil.rmtree, TEMPORARY, ignore_errors=True)

import argparse  # noqa: E402
import importlib  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
from types import ModuleType  # noqa: E402
from urllib.parse import parse_qs  # noqa: E402

with suppress(ImportError):
    import spaces  # noqa: F401  (on ZeroGPU it must be there before torch)

import gradio as gr  # noqa: E402
from starlette.middleware import Middleware  # noqa: E402
from starlette.middleware.gzip import GZipMiddleware  # noqa: E402
from starlette.requests import ClientDisconnect  # noqa: E402
from starlette.responses import Response  # noqa: E402

from clipneurons.bundle.config import BundleError  # noqa: E402
from clipneurons.bundle.hub import NAME  # noqa: E402
from clipneurons.shipped import ARTIFACTS, TOWERS  # noqa: E402
from tabs.concepts.examples import opening_concepts  # noqa: E402
from tabs.edit.sources import example as edit_example  # noqa: E402
from tabs.explore.handlers import number  # noqa: E402
from tabs.explore.routes import routes  # noqa: E402
from tabs.server.events import LATEST, PRIVATE  # noqa: E402
from tabs.server.messages import user_errors  # noqa: E402
from tabs.server.no_url_fetch import fetch_nothing  # noqa: E402
from tabs.server.registry import BundleRegistry  # noqa: E402
from tabs.server.session import MODEL, BundleSession  # noqa: E402
from tabs.server.whole_pictures import write_pictures_once  # noqa: E402
from tabs.shift import handlers as shift_handlers  # noqa: E402
from tabs.ui import bundle_chooser, image_input  # noqa: E402
from tabs.ui.theme import HEAD, css, theme  # noqa: E402

TABS = (
    "explore",
    "concepts",
    "edit",
    "confusions",
    "segmentation",
    "adversarial",
    "shift",
    "about",
)
# One image at a time through a model on a CPU; others wait in a queue of bounded length.
AT_ONCE, WAITING = 1, 64


def tab_modules() -> dict[str, ModuleType]:
    """The package of each tab: TITLE, build, and what it adds to the page, CSS and HEAD."""
    return {name: importlib.import_module(f"tabs.{name}") for name in TABS}


def build(registry: BundleRegistry) -> gr.Blocks:
    """The whole page over the sessions of a registry."""
    with gr.Blocks(
        title="clipneurons: what each neuron of CLIP says", analytics_enabled=False
    ) as page:
        top = bundle_chooser.top(registry)
        with gr.Tabs(elem_id="tabs", overflow_behavior="wrap") as tabs:
            modules = {}
            for name, module in tab_modules().items():
                with gr.Tab(module.TITLE, id=name, elem_id=f"tab-{name}") as tab:
                    inputs = [top.source, top.query] if name == "explore" else [top.source]
                    modules[name] = module.build(registry, *inputs)
                tab.select(None, js=f"() => window.cnTab('{name}')", **PRIVATE)
                if when_selected := getattr(modules[name], "when_selected", None):
                    when_selected(tab)
        for handles in modules.values():
            for name, handed, image in getattr(handles, "hands", ()):
                opened = handed.success(None, None, js=f"() => window.cnHand('{name}')", **PRIVATE)
                modules[name].receive(opened, image)
        own_clip = bundle_chooser.own_clip(registry)
        _permanent_links(page, registry, top, own_clip, tabs, modules)
    _one_sign_of_failure(page)
    for fn in page.fns.values():
        if fn.api_visibility == "public" and fn.api_name:
            fn.fn.__name__ = fn.api_name  # MCP calls a tool by its function's name
    return page


def _one_sign_of_failure(page: gr.Blocks) -> None:
    """Progress, and that it failed, is shown on one output of a handler instead of on each."""
    for fn in page.fns.values():
        seen = [out for out in fn.outputs if is_seen(out)]
        if len(fn.outputs) > 1 and seen and not fn.show_progress_on:
            fn.show_progress_on = seen[:1]


def is_seen(output) -> bool:
    hidden = isinstance(output, gr.State) or "offstage" in (output.elem_classes or ())
    return not hidden and getattr(output, "visible", None) is True


def _permanent_links(page, registry: BundleRegistry, top, own_clip, tabs, modules) -> None:
    """The address bar restores what was shown: at the start, on links and on going back."""
    where = gr.Textbox(elem_classes="offstage", label="Address", elem_id="address")
    button = gr.Button("Restore", elem_classes="offstage", elem_id="restore")
    explore = modules["explore"]
    # A gallery image that a link opens in another tab; Edit reads its address itself.
    images = {
        name: block
        for block in list(page.blocks.values())
        for name in TABS
        if name not in ("explore", "edit") and getattr(block, "elem_id", None) == f"{name}-image"
    }

    @user_errors
    def restore(query: str) -> dict:
        address = parse_qs(query.lstrip("?")[:2000], keep_blank_values=True)
        given = {name: values[0] for name, values in address.items()}
        try:
            session = registry[given.get("bundle")]
        except gr.Error as error:  # a link to a bundle that is not here, or not here any more
            gr.Warning(error.message)
            session, given = registry.first, {"tab": given.get("tab"), "bundle": given["bundle"]}
        asked, tab = given.get("bundle", ""), given.get("tab")
        named = bool(registry.hub and NAME.fullmatch(asked))
        updates = {
            top.source: bundle_chooser.shown(registry, session.key),
            own_clip.name: asked if named else "",
            tabs: gr.Tabs(selected=tab if tab in TABS else "explore"),
            **explore.restore(session, given),
        }
        if named and session.key != asked:
            # Nothing is fetched because of a link, but the field is there and filled in.
            updates[own_clip.panel] = gr.Accordion(open=True)
        image = number(given.get("picture"), -1)
        if tab in images and image in session.bundle.examples:
            updates[images[tab]] = session.image(image)
        return updates

    outputs = [top.source, own_clip.panel, own_clip.name, tabs, *explore.restored, *images.values()]
    options = dict(show_progress="hidden", **PRIVATE, **LATEST)  # two quick steps back are two
    # What is typed while the page loads stays; after a step back, no search is an empty one.
    for event, js in (
        (page.load, "() => [location.search]"),
        (button.click, "() => [location.search + (/[?&]q=/.test(location.search) ? '' : '&q=')]"),
    ):
        restored = event(restore, [where], outputs, js=js, **options)
        explore.then_show(restored, restored=True)
        explore.then_search(restored)
        restored.then(None, js="() => window.cnArrived()")


def open_library(sources: list[str], hub: bool = False) -> BundleRegistry:
    """Sessions on the given folders and Hub repositories, or of the project's own bundles.

    With `hub`, more can be opened from the Hub on the page.
    """
    sources = sources or [
        str(ARTIFACTS / tower) for tower in TOWERS if (ARTIFACTS / tower / "config.json").is_file()
    ]
    if not sources:
        raise BundleError(
            "there is no bundle to show: make one with `python -m export run`, then pass it with "
            "--bundle FOLDER"
        )
    return BundleRegistry([BundleSession.open(source) for source in sources], hub)


def for_this_machine(host: str | None) -> bool:
    """Whether nobody else is served, so that the page may open bundles from the Hub by name."""
    return _address(host) in ("127.0.0.1", "localhost", "::1") and "SPACE_ID" not in os.environ


def _address(host: str | None) -> str:
    return host or os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1"


def check_address(host: str | None, port: int | None) -> None:
    """Listen once, as the page will: Gradio goes on and on about an address it cannot have.

    Raises `OSError` with a message for the owner.
    """
    host = _address(host)
    try:
        family, *_, address = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)[0]
        socket.create_server(address[:2], family=family).close()
    except (OSError, UnicodeError) as error:
        reason = (getattr(error, "strerror", None) or "no host name").partition(" (")[0]
        at = host if port is None else f"{host}, port {port}"
        raise OSError(f"cannot listen on {at} ({reason}): choose other --host or --port") from None


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, not {text!r}")
    return int(text)


def serve(registry: BundleRegistry, *, block: bool = True, **options) -> gr.Blocks:
    """Build and launch the page; `options` go to `launch`."""
    fetch_nothing()
    write_pictures_once()
    page = build(registry)
    page.queue(max_size=WAITING, default_concurrency_limit=8)
    for fn in page.fns.values():
        if fn.concurrency_id == MODEL:
            fn.concurrency_limit = AT_ONCE
    tabs = tab_modules().values()
    page.launch(
        theme=theme(), css=css() + "".join(getattr(tab, "CSS", "") for tab in tabs),
        head=HEAD + "".join(getattr(tab, "HEAD", "") for tab in tabs),
        max_file_size=image_input.MAX_BYTES, ssr_mode=False, enable_monitoring=False, share=False,
        run_history=False, footer_links=["api"], show_error=False,
        prevent_thread_lock=not block,
        app_kwargs={
            "routes": routes(registry),
            "middleware": [Middleware(GZipMiddleware)],
            "exception_handlers": {ClientDisconnect: _gone},
        },
        **options,
    )  # fmt: skip
    return page


def _gone(*_) -> Response:
    """For a visitor who left in the middle of an upload: nobody reads it, and nothing failed."""
    return Response(status_code=499)


def prepare(session: BundleSession) -> None:
    """What the first visitor would wait for: examples, and what reads and compares pictures."""
    opening_concepts(session)
    shift_handlers.shipped_example(session)
    with suppress(ValueError):  # with the shared bias there are no concepts
        session.concept_reader  # noqa: B018  prepared here, not in front of an answer
    session.reader.profiler, session.reader.text_pool  # noqa: B018
    with suppress(ValueError):  # without pictures there is nothing to edit
        edit_example(session)


def say(phase: str) -> None:
    """Print how long after the start a phase was done."""
    print(f"{time.perf_counter() - STARTED:6.2f} s  {phase}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Open the bundles, serve the page, then load the model while it is looked at."""
    parser = argparse.ArgumentParser(description="What each neuron of CLIP says, as text.")
    parser.add_argument("--bundle", action="append", default=[], metavar="FOLDER|USER/NAME",
        help="a bundle to show, a folder or on the Hub, may be repeated (default: the bundled "
        "ones)")  # fmt: skip
    parser.add_argument("--host", default=None,
        help="address to listen on (default: this machine alone, where the page also opens "
        "bundles from the Hub by name)")  # fmt: skip
    parser.add_argument(
        "--port", type=_port, default=None, help="default: the first free from 7860"
    )
    parser.add_argument("--mcp", action="store_true",
        help="also serve the tabs' functions as MCP tools (needs gradio[mcp])")  # fmt: skip
    args = parser.parse_args(arguments)
    say("imports")
    try:
        check_address(args.host, args.port)
        registry = open_library(args.bundle, for_this_machine(args.host))
    except (BundleError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    say(f"bundle ({', '.join(registry.sessions)})")
    page = serve(
        registry, block=False, server_name=args.host, server_port=args.port,
        mcp_server=args.mcp or None,
    )  # fmt: skip
    say("page")
    registry.warm(lambda session: say("model"), prepare)
    page.block_thread()
    return 0


def _stop(*_) -> None:
    """End at once on SIGTERM, and leave nothing behind."""
    shutil.rmtree(TEMPORARY, ignore_errors=True)
    os._exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main())
