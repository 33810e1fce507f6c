"""A checked bundle with its card, sent to the Hugging Face Hub in one commit."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from clipneurons.bundle.bundle import Bundle, read_bundle
from clipneurons.bundle.config import (
    BUNDLE_FILES,
    CARD,
    CHECKPOINT_FILES,
    MODEL_FILES,
    OPTIONAL_FILES,
)
from clipneurons.bundle.folders import CHECKSUMS, checksum_lines, file_sha256
from clipneurons.models.open_clip_folder import WEIGHTS_FILE, whole_file
from export.common.errors import UserError
from export.pipeline.update_bundle import card_of, open_model


@dataclass(frozen=True)
class Parcel:
    """What will be sent: name -> bytes or file, with `card_edited` when a person wrote the card."""

    files: dict[str, bytes | Path]
    card_edited: bool


def pack(folder: Path, repository: str) -> Parcel:
    """Check a bundle and its model, and render the card; raises before anything leaves."""
    bundle = read_bundle(folder, (CARD,))
    _check_model(bundle, folder)
    listed = dict(
        reversed(line.split("  ", 1)) for line in (folder / CHECKSUMS).read_text().splitlines()
    )
    edited = file_sha256(folder / CARD) != listed[CARD]
    names = (*BUNDLE_FILES, *OPTIONAL_FILES)
    files: dict[str, bytes | Path] = {n: folder / n for n in names if (folder / n).is_file()}
    if WEIGHTS_FILE in files:
        files[WEIGHTS_FILE] = whole_file(folder)
    rendered = files | {CARD: card_of(bundle, folder, repository).encode()}
    # The checksum is always that of the rendered card: an edited card differs from it.
    files = (files if edited else rendered) | {CHECKSUMS: _checksums(rendered)}
    return Parcel(files, edited)


def _checksums(files: dict[str, bytes | Path]) -> bytes:
    sums = {
        name: file_sha256(data) if isinstance(data, Path) else hashlib.sha256(data).hexdigest()
        for name, data in files.items()
    }
    return checksum_lines(sums).encode()


def send(parcel: Parcel, repository: str, private: bool, create_pr: bool, message: str) -> str:
    """Create the repository if need be, commit, and return the address to show."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, errors
    from huggingface_hub.utils import httpx

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    try:
        api.create_repo(repository, private=private or None, exist_ok=True, repo_type="model")
        info = api.model_info(repository)
        remote = {s.rfilename for s in info.siblings or []}
        files = dict(parcel.files)
        if _card_was_edited(api, repository, info.sha, remote):
            print(f"{CARD} of {repository} was edited by hand and is kept")
            del files[CARD]
        adds = [CommitOperationAdd(name, data) for name, data in sorted(files.items())]
        stale = [n for n in OPTIONAL_FILES if n in remote and n not in files]
        commit = api.create_commit(
            repository,
            [*adds, *map(CommitOperationDelete, stale)],
            commit_message=message,
            create_pr=create_pr,
            parent_commit=info.sha,  # a card edited meanwhile is not lost: the Hub refuses
        )
    except errors.LocalTokenNotFoundError:
        raise UserError("no token: log in with `hf auth login`, or set HF_TOKEN") from None
    except errors.OfflineModeIsEnabled:
        raise UserError("HF_HUB_OFFLINE is set: unset it to publish") from None
    except errors.HfHubHTTPError as error:
        raise UserError(f"the Hub refused {repository}: {_reason(error)}") from None
    except ValueError as error:  # of the card's front matter, before anything leaves
        reason = " ".join(str(error).split())
        raise UserError(f"the Hub would refuse {CARD}: {reason}") from None
    except httpx.TransportError:
        raise UserError("the Hub cannot be reached: is this machine connected?") from None
    if create_pr:
        return f"pull request: {commit.pr_url}"
    return f"{commit.commit_url}\nload_bundle({f'{repository}@{commit.oid}'!r})"


def _check_model(bundle: Bundle, folder: Path) -> None:
    """Anyone must be able to find the model: by name, or in the folder itself."""
    model = bundle.config.model
    if bundle.config.carries_model:
        files = MODEL_FILES if model == "." else CHECKPOINT_FILES
        missing = [n for n in files[:2] if not (folder / n).is_file()]
        if missing:
            raise UserError(f"{folder} should hold its model, but {missing[0]} is missing")
        open_model(bundle, folder, "cpu")
    elif bundle.config.ships_model:
        raise UserError(
            f"{folder} names the bundled {model}, which nobody finds on the Hub: export it with"
            " --out outside of artifacts/, where it takes its model along"
        )
    elif bundle.config.pretrained and Path(bundle.config.pretrained).exists():
        raise UserError(
            f"{folder} was made with the local file {bundle.config.pretrained}, which nobody else "
            "has: export with a named model, or with a folder that holds its weights"
        )


def _card_was_edited(api, repository: str, commit: str, remote: set[str]) -> bool:
    """Whether the repository has a card that is not the one rendered for its bundle."""
    if CARD not in remote:
        return False
    if CHECKSUMS not in remote:
        return True
    card = api.hf_hub_download(repository, CARD, revision=commit)
    sums = Path(api.hf_hub_download(repository, CHECKSUMS, revision=commit)).read_text()
    rendered = dict(reversed(line.split("  ", 1)) for line in sums.splitlines()).get(CARD)
    return file_sha256(Path(card)) != rendered


def _reason(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    known = {
        401: "not logged in, or the token is not valid (`hf auth login`)",
        403: "the token may not write there",
        404: "no such repository, or the token may not see it",
        409: "it was changed meanwhile, run again",
        412: "it was changed meanwhile, run again",
    }
    return known.get(status) or str(error).strip().splitlines()[0]
