"""`python -m export mend`: find the neurons that confuse a classifier, and take them out.

Images lie in ROOT/CLASS, or in ROOT/CLASS/CUE where a cue that should not matter is known (dogs in
snow, dogs on grass). Units are found on one half of the images and measured on the other.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from clipneurons.edit.find_options import FindOptions
from export.common.flags import positive
from export.common.settings import DEFAULT_MODEL


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `mend`."""
    add = parser.add_argument
    add("--images", type=Path, required=True,
        help="folder of ROOT/CLASS/IMAGE, or ROOT/CLASS/CUE/IMAGE")  # fmt: skip
    add("--bundle", default=DEFAULT_MODEL, help="bundle, a folder or on the Hub"
        " (default: %(default)s)")  # fmt: skip
    add("--out", type=Path, required=True, help="folder of report.json and edit.json")
    add("--edit", type=Path, help="measure this edit instead of looking for one")
    add("--apply", type=Path, metavar="FOLDER",
        help="write the model with the edit in its weights, for open_clip")  # fmt: skip
    add("--overwrite", action="store_true", help="replace another report in --out")
    add("--most", type=positive, default=FindOptions.most,
        help="units at most (default: %(default)s)")  # fmt: skip
    add("--elsewhere", metavar="IMAGES", help="other labelled images, as in `run`, that should"
        " stay as they are (default: 500 scenes and the photographs that ship,"
        " for a bundle of them)")  # fmt: skip
    add("--templates", help="prompts of the classes (default: photo for a bundled model, siglip"
        " for a SigLIP, else simple)")  # fmt: skip
    add("--seed", type=int, default=0, help="of the halves and random neurons"
        " (default: %(default)s)")  # fmt: skip
    add("--batch", type=positive, default=64, help="images a batch (default: %(default)s)")
    add("--device", help="default: cuda where there is one, else cpu")


def run(args: argparse.Namespace) -> int:
    """Find, measure, write; 0 also where no edit helps, which is said."""
    from export.mend.mend_classifier import mend_classifier

    mend_classifier(args)
    return 0
