"""Handlers that live at the top of a module, given the bundles that they work on."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import wraps

import gradio as gr
from PIL import Image

from tabs.server.gpu import on_gpu
from tabs.server.messages import user_errors
from tabs.server.registry import BundleRegistry


@dataclass(frozen=True)
class Handles:
    """What the page connects of a tab.

    when_selected  shows an example when the tab is opened
    hands          (tab, event, state): after the event the state holds a `HandedImage` for a tab
    receive        reads such an image, in the tab that takes them
    """

    when_selected: Callable[[gr.Tab], None] | None = None
    hands: Sequence[tuple[str, gr.events.Dependency, gr.State]] = ()
    receive: Callable[[gr.events.Dependency, gr.State], None] | None = None


@dataclass(frozen=True, eq=False)
class HandedImage:
    """An image for another tab, with classes to tell apart and the correct one, if known.

    `picture` is its number in the gallery, where it is from there.
    """

    bundle: str
    image: Image.Image
    class_names: tuple[str, ...] = ()
    correct: str = ""
    picture: int | None = None


def handler(
    registry: BundleRegistry,
    function: Callable,
    gpu_seconds: int | None = None,
    request: type | None = None,
) -> Callable:
    """A function of the registry and more as a handler of an event, mistakes as page messages.

    Name, description and types of what is left stay, as the API shows them. With `gpu_seconds`
    it asks for a GPU where one is lent. `request` is a dataclass that the function takes in place
    of as many of the event's inputs as it has fields.
    """
    function = user_errors(function)
    names = [field.name for field in fields(request)] if request else []

    def arguments(values: tuple) -> tuple:
        return (request(*values[: len(names)]), *values[len(names) :]) if request else values

    if inspect.isgeneratorfunction(function):

        @wraps(function)
        def bound(*values):
            yield from function(registry, *arguments(values))

    else:

        @wraps(function)
        def bound(*values):
            return function(registry, *arguments(values))

    signature = inspect.signature(function)
    rest = list(signature.parameters.values())[2 if request else 1 :]
    inputs = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    bound.__signature__ = signature.replace(parameters=[*inputs, *rest])
    return bound if gpu_seconds is None else on_gpu(gpu_seconds)(bound)


def shown_by(progress: gr.Progress) -> Callable[[int, int, str], None]:
    """Progress as Gradio draws it, with the number of images read."""

    def show(read: int, total: int, phase: str) -> None:
        progress((read, total), desc=phase, unit="images")

    return show
