"""Handlers that live at the top of a module, given the bundles that they work on."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps

import gradio as gr

from tabs.server.gpu import on_gpu
from tabs.server.messages import user_errors
from tabs.server.registry import BundleRegistry


@dataclass(frozen=True)
class Handles:
    """What the page connects of a tab: `when_selected` shows an example when it is opened."""

    when_selected: Callable[[gr.Tab], None]


def handler(
    registry: BundleRegistry, function: Callable, gpu_seconds: int | None = None
) -> Callable:
    """A function of the registry and more as a handler of an event, mistakes as page messages.

    Name, description and types of what is left stay, as the API shows them. With `gpu_seconds`
    it asks for a GPU where one is lent.
    """
    function = user_errors(function)

    if inspect.isgeneratorfunction(function):

        @wraps(function)
        def bound(*args):
            yield from function(registry, *args)

    else:

        @wraps(function)
        def bound(*args):
            return function(registry, *args)

    signature = inspect.signature(function)
    _, *rest = signature.parameters.values()
    bound.__signature__ = signature.replace(parameters=rest)
    return bound if gpu_seconds is None else on_gpu(gpu_seconds)(bound)
