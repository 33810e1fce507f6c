"""A user's mistakes as messages of the page."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps

import gradio as gr


def user_errors(handler: Callable) -> Callable:
    """Turn the errors that name a user's mistake (`ValueError`, `KeyError`) into page messages."""

    def message(error: Exception) -> gr.Error:
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        return gr.Error(text, print_exception=False)

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
