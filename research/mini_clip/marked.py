"""A part of a page that a command writes, between marks that its author has put there."""


def renewed(page: str, begin: str, end: str, text: str) -> str:
    """The page with `text` between its marks; raises `ValueError` for a page without them."""
    before, begun, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not begun or not ended:
        raise ValueError(f"expected {begin} and {end} in the page")
    return f"{before}{begin}\n{text}\n{end}{after}"
