"""What a checkout ships beside the code: packs of pictures, and the folders of the small CLIPs."""

from pathlib import Path

ARTIFACTS = Path(__file__).resolve().parents[1] / "artifacts"
# A bundle beside its model's weights each; the first one is what commands take by default.
TOWERS = ("mini-vit", "mini-rn")
