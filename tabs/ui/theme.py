"""How the page looks: local fonts, an ink-on-paper palette, two signal colours."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import gradio as gr
from gradio.themes.utils.fonts import STATIC_FONTS_DIR, LocalFont
from PIL import ImageFont

HERE = Path(__file__).parent
# Of the fonts in Gradio's wheel, "SourceSans3" holds no Latin letters; this one does.
TEXT = "SourceSansPro"
# Concepts of an image whose map of patches can be lit up, and how: chosen, or pointed at.
MAPS = 50
_LIT = """
.cn-look:has(.cn-pick-{i}:checked):not(:has(label:hover)) .cn-picture .cn-map-{i},
.cn-look:has(label:hover .cn-pick-{i}) .cn-picture .cn-map-{i} {{ opacity: 1; }}"""
# Lora, SIL Open Font License (fonts/LORA-OFL.txt).
HEADING = HERE / "fonts" / "lora-latin.woff2"
CSS = (HERE / "style.css").read_text()
_SCRIPTS = ("page.js", "open_tab.js", "fields.js", "folds.js", "cancel.js")
HEAD = "".join(f"<script>{(HERE / name).read_text()}</script>" for name in _SCRIPTS)

_INK = gr.themes.Color(
    name="ink",
    c50="#faf8f4", c100="#f3f0e9", c200="#e6e1d6", c300="#d3ccbe", c400="#a49c8d",
    c500="#777064", c600="#5a544b", c700="#423d37", c800="#2b2825", c900="#1e1c1a", c950="#151413",
)  # fmt: skip
_BLUE = gr.themes.Color(
    name="signal",
    c50="#eef5fa", c100="#d9e9f4", c200="#b4d4ea", c300="#84b8db", c400="#4c97c9",
    c500="#0072b2", c600="#00639b", c700="#005180", c800="#064063", c900="#0a324c", c950="#072132",
)  # fmt: skip


def theme() -> gr.themes.Base:
    """The page's theme; fetches nothing from outside."""
    base = gr.themes.Base(
        primary_hue=_BLUE,
        neutral_hue=_INK,
        font=[LocalFont("Source Sans Pro", (400, 700)), "system-ui", "sans-serif"],
        font_mono=[LocalFont("IBM Plex Mono", (400, 600)), "ui-monospace", "monospace"],
        radius_size=gr.themes.sizes.radius_sm,
        text_size=gr.themes.sizes.text_md,
    )
    return base.set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        background_fill_primary="#fffdfa",
        background_fill_primary_dark="*neutral_900",
        background_fill_secondary="*neutral_100",
        background_fill_secondary_dark="*neutral_800",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_border_width="0px",
        block_border_width_dark="0px",
        block_shadow="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_label_border_width_dark="0px",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_400",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_300",
        block_title_text_weight="600",
        block_padding="0",
        border_color_primary="*neutral_200",
        border_color_primary_dark="*neutral_800",
        body_text_color="*neutral_900",
        body_text_color_dark="*neutral_100",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        button_primary_background_fill="*primary_500",
        button_primary_background_fill_hover="*primary_600",
        button_primary_background_fill_dark="*primary_500",
        button_primary_text_color="white",
        button_secondary_background_fill="*neutral_100",
        button_secondary_background_fill_hover="*neutral_200",
        button_secondary_background_fill_dark="*neutral_800",
        button_secondary_background_fill_hover_dark="*neutral_700",
        button_border_width="1px",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="*neutral_700",
        input_background_fill="#fffdfa",
        input_background_fill_dark="*neutral_900",
        input_border_color="*neutral_300",
        input_border_color_dark="*neutral_700",
        input_border_color_focus="*primary_500",
        # What is not chosen must be seen in the dark too.
        checkbox_background_color_dark="*neutral_900",
        checkbox_border_color="*neutral_500",
        checkbox_border_color_dark="*neutral_400",
        checkbox_border_color_hover_dark="*neutral_300",
        checkbox_label_background_fill_dark="*neutral_800",
        checkbox_label_border_color_dark="*neutral_600",
        checkbox_label_border_width_dark="1px",
        link_text_color="*primary_600",
        link_text_color_dark="*primary_300",
    )


def css() -> str:
    """The style sheet, with the heading font inside it: the page serves no files of its own."""
    font = b64encode(HEADING.read_bytes()).decode()
    face = (
        "@font-face { font-family: 'Lora'; font-weight: 400 700; font-display: swap; "
        f"src: url(data:font/woff2;base64,{font}) format('woff2'); }}\n"
    )
    return face + CSS + "".join(_LIT.format(i=i) for i in range(MAPS))


def picture_font(size: int, heading: bool = False) -> ImageFont.FreeTypeFont:
    """The page's fonts for pictures drawn on the server."""
    if not heading:
        return ImageFont.truetype(STATIC_FONTS_DIR / TEXT / f"{TEXT}-Regular.woff2", size)
    font = ImageFont.truetype(HEADING, size)
    font.set_variation_by_axes([600])
    return font
