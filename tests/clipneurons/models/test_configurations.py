import re
from pathlib import Path

import open_clip

from clipneurons.models.configurations import statuses, table

DOCUMENT = (Path(__file__).parents[3] / "docs/guide/models.md").read_text()
# Some of every line of the table.
BUILT = (
    "RN50", "ViT-B-32", "EVA02-B-16", "MobileCLIP-B", "coca_base", "ViT-L-14-CLIPA",
    "vit_medium_patch16_gap_256", "PE-Core-B-16", "PE-Core-T-16-384", "ViT-B-16-SigLIP",
    "ViT-B-16-SigLIP2", "coca_ViT-B-32", "MobileCLIP-S1", "convnext_base", "ViTamin-S",
    "swin_base_patch4_window7_224", "vit_relpos_medium_patch16_cls_224",
)  # fmt: skip


def documented() -> dict[str, str]:
    """The status of every configuration, as the document has it."""
    rows = re.findall(r"^\| (.+) \((\d+)\) \| (.+) \|$", DOCUMENT, re.MULTILINE)
    return {name: status for status, _, names in rows for name in names.split(", ")}


def test_the_document_lists_every_configuration_once():
    listed = documented()
    assert set(listed) == set(open_clip.list_models())
    in_order = {name: listed[name] for name in open_clip.list_models()}
    assert table(in_order) in DOCUMENT, "python -m clipneurons.models.configurations"
    assert sum(not status.startswith("refused") for status in listed.values()) == 110


def test_towers_are_read_or_refused_as_the_document_says():
    listed = documented()
    assert {listed[name] for name in BUILT} == set(listed.values())
    assert statuses(BUILT) == {name: listed[name] for name in BUILT}
