"""Fidelity figures in words, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping


def in_words(figures: Mapping) -> str:
    """A line a layer: accuracy where classes are known, else agreement, in every condition."""
    lines = []
    for layer, conditions in figures.get("layers", {}).items():
        kind = "accuracy" if "accuracy" in figures["baseline"] else "agreement"
        whole = figures["baseline"].get("accuracy", 1.0)
        kept = ", ".join(f"{name} {found[kind]:.1%}" for name, found in conditions.items())
        lines.append(f"{layer}  {kind} {whole:.1%} unchanged; {kept}")
    return "\n".join(lines + left_out(figures))


def left_out(figures: Mapping) -> list[str]:
    """A line on the images that say no class, or one beyond the names; none where all say one."""
    if not figures.get("without_class"):
        return []
    return [
        f"labels   {figures['without_class']:,} of {figures['count']:,} images have no class,"
        f" or one beyond the {figures['classes']:,} names: left out of accuracy"
    ]
