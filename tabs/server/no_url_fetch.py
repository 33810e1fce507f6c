"""No address that a client names is fetched.

Gradio downloads an http(s) address that a program sends in place of a file, and passes on what
`/gradio_api/file=http://...` names. It keeps such requests from private networks, but they would
still leave this machine for whatever host a stranger chooses.
"""

from __future__ import annotations

import gradio as gr
import safehttpx


async def _refuse(*_, **__):
    raise gr.Error(
        "Addresses are not fetched here: send the file itself (with gradio_client: "
        "handle_file(PATH); over MCP: a data: URI).",
        print_exception=False,
    )


def fetch_nothing() -> None:
    """Refuse, for the whole process; Gradio asks outside hosts for clients through these two."""
    safehttpx.get = _refuse
    safehttpx.async_validate_url = _refuse
