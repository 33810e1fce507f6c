"""`python -m export attack`: adversarial pictures of class pairs, and what to think of them.

One class pair or a file of pairs, all methods with the same budget, several seeds; the same
command goes on from where a stopped run was, and prints the table at the end.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, fields
from pathlib import Path

from clipneurons.adversarial.methods import INDIRECT, METHODS, TESTED_LABELS
from export.attack.options import SHOWN, AttackOptions
from export.common.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add = parser.add_argument
    add("--bundle", help="bundle of the model under attack")
    add("--true", help="class that the pictures show")
    add("--target", "--fooled", help="class that they shall be read as")
    add("--pairs", metavar="FILE", help="CSV file of `true,target` lines, or `examples`")
    add("--out", required=True, type=Path, help="folder for pictures, rows and tables")
    add("--methods", help=f"comma-separated, of: {', '.join(METHODS)}"
        f" (default: all that can be had; {INDIRECT} needs a ViT, {TESTED_LABELS} a bundle"
        " with such labels)")  # fmt: skip
    add("--images", type=int, help="pictures of a pair, method and seed")
    add("--seeds", type=int, help="repetitions with other random choices")
    add("--layers", help="comma-separated MLP layers; by default all of the bundle")
    add("--neurons", type=int, help="units that the cues come from")
    add("--words", type=int, help="cues of a pair")
    add("--cues-each", type=int, help="cues in one description (templates)")
    add("--block", help="comma-separated words that no cue may contain")
    add("--similarity", choices=("auto", "sentence", "clip", "none"),
        help="how synonyms of the target class are found")  # fmt: skip
    add("--describer", help="`templates`, or a chat model's id or folder")
    add("--painter", help="`composer`, `photographs` (the shipped ones, pasted, beside pictograms),"
        " or a text-to-image model's id or folder")  # fmt: skip
    add("--pack", help="composer: another pack of pictograms")
    add("--heldout", action="store_true", help="composer: draw in the held-out style; photographs:"
        " paste the half that settings are not chosen on")  # fmt: skip
    add("--steps", type=int, help="denoising steps of the painter")
    add("--guidance", type=float, help="guidance of the painter")
    add("--size", type=int, help="side of the pictures; by default the model's own")
    add("--offload", action="store_true", help="keep on the GPU only what works")
    add("--device", help="by default CUDA where there is one")
    add("--others", help="comma-separated further classes to choose from")
    add("--transfer", action="append", metavar="MODEL",
        help="another model that judges too: a folder, or NAME:TAG; repeatable")  # fmt: skip
    add("--second-opinion", metavar="MODEL", help="model that checks what painted pictures show")
    add("--data", help="images for the indirect effects")
    add("--keep", choices=("all", "successes", "none"),
        help=f"which pictures to keep besides the first {SHOWN} of each method")  # fmt: skip
    defaults = asdict(AttackOptions(out=Path()))
    del defaults["out"]
    parser.set_defaults(**defaults)


def run(args: argparse.Namespace) -> int:
    """Run the attack; what the library says of names, numbers and models is one line."""
    from export.attack.run import run_attack

    options = AttackOptions(**{o.name: getattr(args, o.name) for o in fields(AttackOptions)})
    try:
        print(run_attack(options))
    except (ValueError, ImportError) as error:
        raise UserError(str(error)) from error
    return 0
