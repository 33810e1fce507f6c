"""`python -m export attack`: adversarial images of class pairs, and how often the model errs.

One class pair or a file of pairs, all methods with the same budget, several seeds. The same
command goes on where a run was stopped, and prints the table at the end.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, fields
from pathlib import Path

from clipneurons.adversarial.cue_request import METHODS, RECORDED
from export.attack.options import SHOWN, AttackOptions
from export.common.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add = parser.add_argument
    add("--bundle", help="bundle of the model under attack")
    add("--true", help="true class, which the images show")
    add("--target", help="target class, which they should be read as")
    add("--pairs", metavar="FILE", help="CSV file of `true,target` lines, or `examples`")
    add("--out", required=True, type=Path, help="folder for images, rows and tables")
    add("--methods", help=f"comma-separated, of: {', '.join(METHODS)}"
        f" (default: all; {' and '.join(RECORDED)} need a generator that draws the bundle's texts)"
    )  # fmt: skip
    add("--images", type=int, help="images of a pair, method and seed")
    add("--seeds", type=int, help="repetitions with other random choices")
    add("--layers", help="comma-separated MLP layers; by default all of the bundle")
    add("--neurons", type=int, help="units that the cues come from")
    add("--cues", type=int, help="cues of a pair")
    add("--cues-per-image", type=int, help="cues in one description (templates)")
    add("--block", help="comma-separated words that no cue may contain")
    add("--similarity", choices=("auto", "sentence", "clip", "none"),
        help="how synonyms of the target class are found")  # fmt: skip
    add("--describer", help="`templates`, or a chat model's id or folder")
    add("--generator", help="`composer`, `photographs` (the shipped ones, pasted, beside"
        " pictograms), or a text-to-image model's id or folder")  # fmt: skip
    add("--pack", help="composer: another pack of pictograms")
    add("--heldout", action="store_true", help="composer: draw in the held-out style; photographs:"
        " paste the half that settings are not chosen on")  # fmt: skip
    add("--steps", type=int, help="denoising steps of a text-to-image model")
    add("--guidance", type=float, help="guidance of a text-to-image model")
    add("--size", type=int, help="side of the images; by default the model's own")
    add("--offload", action="store_true", help="keep on the GPU only what works")
    add("--device", help="by default CUDA where there is one")
    add("--others", help="comma-separated further classes to choose from")
    add("--transfer", action="append", metavar="MODEL",
        help="another model that judges too: a folder, or NAME:TAG; repeatable")  # fmt: skip
    add("--second-opinion", metavar="MODEL", help="model that checks what generated images show")
    add("--keep", choices=("all", "successes", "none"),
        help=f"which images to keep besides the first {SHOWN} of each method")  # fmt: skip
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
