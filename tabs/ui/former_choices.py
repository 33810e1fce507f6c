"""Inputs that still take a choice by the word of an earlier version."""

from __future__ import annotations

import gradio as gr

from clipneurons.former_names import current


def take_former_names(choice: gr.Radio | gr.Dropdown) -> None:
    """Let requests name one of the choices as it was called before."""
    checked = choice.preprocess

    def preprocess(payload):
        if isinstance(payload, list):
            return checked([current(one) for one in payload])
        return checked(current(payload) if isinstance(payload, str) else payload)

    # On the instance: Gradio writes a stub file beside the source of every subclass.
    choice.preprocess = preprocess
