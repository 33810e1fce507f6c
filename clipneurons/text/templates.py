"""Prompt templates by name."""


def _in_pairs(pattern: str, words: str) -> list[str]:
    """The pattern with each word, once with "a" and once with "the"."""
    return [pattern.format(x, word) for word in words.split(", ") for x in ("a", "the")]


# The prompts published with CLIP for ImageNet (80, and the 7 that do almost as well), with their
# "a origami". SigLIP's authors add the bare name, and remove punctuation (`embed_texts`).
_OPENAI = (
    *_in_pairs(
        "{1} of {0} {{}}.",
        "a photo, a drawing, a painting, a sketch, a doodle, a sculpture, a rendering, "
        "a rendition, a tattoo, graffiti, art, itap, a bad photo, a good photo, a bright photo, "
        "a dark photo, a blurry photo, a cropped photo, a close-up photo, a pixelated photo, "
        "a black and white photo, a low resolution photo, a jpeg corrupted photo",
    ),
    *_in_pairs(
        "a photo of {0} {1} {{}}.", "hard to see, clean, dirty, cool, nice, weird, large, small"
    ),
    *_in_pairs("{0} {1} {{}}.", "plastic, origami, toy, cartoon, plushie, embroidered"),
    *_in_pairs("{0} {{}} in {1}.", "a video game"),
    "a photo of many {}.",
    "a photo of one {}.",
    "a photo of my {}.",
    "itap of my {}.",
)

_SIMPLE = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)

TEMPLATES: dict[str, tuple[str, ...]] = {
    "none": ("{}",),
    "photo": ("a photo of a {}.",),
    "simple": _SIMPLE,
    "openai": _OPENAI,
    "siglip": (*_SIMPLE, "{}"),
}
