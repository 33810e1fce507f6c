"""PNG files whose texts or colour profile are longer than Pillow reads: their pixels are fine."""

from collections.abc import Callable

from PIL import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")


def decoded(read: Callable[[bytes], Image.Image], data: bytes) -> Image.Image:
    """`read(data)`, without texts and profile where Pillow refuses a PNG for their length."""
    try:
        return read(data)
    except ValueError as error:
        if not data.startswith(_SIGNATURE) or "text" not in str(error).lower():
            raise
        return read(_without_texts(data))


def _without_texts(data: bytes) -> bytes:
    """The file without the chunks that hold texts or a profile."""
    kept, start = [_SIGNATURE], len(_SIGNATURE)
    while start + 12 <= len(data):  # length, name, content, checksum
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if data[start + 4 : start + 8] not in _TEXTS:
            kept.append(data[start:end])
        start = end
    return b"".join(kept)
