"""A user's mistakes as messages of the page."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from html import escape

import gradio as gr


def page_error(text: str) -> gr.Error:
    """A message of the page, which reads messages as HTML: what a link or a bundle says is text."""
    return gr.Error(escape(text, quote=False), print_exception=False)


def user_errors(handler: Callable) -> Callable:
    """Turn the errors that name a user's mistake (`ValueError`, `KeyError`) into page messages."""

    def message(error: Exception) -> gr.Error:
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        return page_error(text)

    if inspect.isgeneratorfunction(handler):

        @wraps(handler)
        def stream(*args, **kwargs):
            try:
                yield from handler(*args, **kwargs)
            except (ValueError, KeyError) as error:
                raise message(error) from error

        return stream

    @wraps(handler)
    def answer(*args, **kwargs):
        try:
            return handler(*args, **kwargs)
        except (ValueError, KeyError) as error:
            raise message(error) from error

    return answer
