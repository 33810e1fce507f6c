"""Choices by the words of earlier versions, which endpoints and commands still take."""

FORMER = {
    # segmentation
    "patch effects": "patch attribution",
    "refined patch effects": "patch attribution + guided filter",
    "second-order shares": "second-order attribution",
    # how texts are weighed
    "paper": "sparse-norm",
    "signed": "sparse-projection",
    "whole": "dense",
    # where cues come from, and how synonyms are found
    "whole effects": "dense effects",
    "tower": "clip",
}


def current(choice: str) -> str:
    """What a choice is called now."""
    return FORMER.get(choice, choice)
