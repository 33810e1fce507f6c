"""The page's blocks: what a program sends of the wrong kind is one clear line, and no trace."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

import gradio as gr
from gradio.components.api_component import Api

from tabs.server.messages import page_error

_KINDS = {
    "string": str, "number": (int, float), "integer": int, "boolean": bool, "array": list,
    "object": dict,
}  # fmt: skip
_LONGEST = 300


class Page(gr.Blocks):
    """Blocks that compare what programs send with the kinds that their endpoints say."""

    async def preprocess_data(self, block_fn, inputs, state, explicit_call=False):
        """Values as the handler takes them; mistakes as messages, with a line in the log."""
        for block, value in zip(block_fn.inputs, inputs, strict=False):
            if isinstance(block, Api) and not fits(value, block.api_info()):
                expected = _named(block.api_info())
                what = f"{block.label}: expected {expected}, not {type(value).__name__}"
                _log(block_fn, what)
                raise page_error(what)
        try:
            return await super().preprocess_data(block_fn, inputs, state, explicit_call)
        except gr.Error as error:
            _log(block_fn, str(error.message))
            error.print_exception = False
            raise
        except Exception as error:  # components raise anything for what they do not expect
            what = str(error).splitlines()[0] if str(error) else type(error).__name__
            _log(block_fn, what)
            raise page_error(what[:_LONGEST]) from None


def fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a value from JSON is of the kind that a schema names; nothing always is."""
    if value is None or "enum" in schema:
        return True
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        return any(fits(value, option) for option in options)
    kind = _KINDS.get(str(schema.get("type")))
    if kind is None:
        return True
    if isinstance(value, bool) and kind is not bool:
        return False
    if isinstance(value, float) and not math.isfinite(value):
        return False
    if isinstance(value, list) and isinstance(schema.get("items"), Mapping):
        return kind is list and all(fits(item, schema["items"]) for item in value)
    return isinstance(value, kind)


def _named(schema: Mapping[str, Any]) -> str:
    options = schema.get("anyOf") or schema.get("oneOf")
    return " or ".join(map(_named, options)) if options else str(schema.get("type"))


def _log(block_fn, what: str) -> None:
    line = f"refused  {block_fn.api_name or 'an event'}: {what}"[:_LONGEST]
    print("".join(c if c.isprintable() else " " for c in line), file=sys.stderr)
