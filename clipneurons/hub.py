"""From what a user types to a folder: a local path, or a Hub repository pinned to one commit."""

from __future__ import annotations

import os
import re
from pathlib import Path

from clipneurons.bundle import BUNDLE_FILES, MODEL_FILES, BundleDamaged, BundleError
from clipneurons.folders import CHECKSUMS

REPOSITORY = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


class HubError(BundleError):
    """A repository cannot be had; the subclasses tell why."""


class NoNetwork(HubError):
    """The Hub cannot be reached, and the cache does not hold the bundle."""


class NoSuchRepository(HubError):
    """No repository or revision of that name can be seen by this user."""


class GatedRepository(HubError):
    """The repository is there, but its owner wants to know who reads it."""


def resolve(source: str | Path, cache_dir: str | Path | None = None, weights: bool = False) -> Path:
    """The folder of a bundle: an existing folder, else "user/name" or "user/name@revision".

    A Hub repository is pinned to the commit that the revision stands for now; only the bundle's
    own files come, with `weights` also the model's. Without a network the cache answers.

    Raises `NoNetwork`, `NoSuchRepository`, `GatedRepository`, `BundleDamaged` for a repository
    that is no bundle, or `BundleError` for what is neither a folder nor a repository's name.
    """
    if Path(source).exists():
        return Path(source)
    name, _, revision = str(source).partition("@")
    if not REPOSITORY.fullmatch(name):
        raise BundleError(
            f"{source} does not exist. Expected a bundle's folder, or 'user/name' or"
            " 'user/name@revision' on the Hugging Face Hub"
        )
    folder = _download(name, revision or None, cache_dir, weights)
    if not (folder / CHECKSUMS).is_file():
        raise BundleDamaged(f"the repository {name} holds no {CHECKSUMS}: it is no bundle")
    return folder


def is_remote(folder: Path) -> bool:
    """Whether a folder is a snapshot in the Hub's cache, whose card a person may have edited."""
    return folder.parent.name == "snapshots"


def _download(name: str, revision: str | None, cache_dir, weights: bool) -> Path:
    from huggingface_hub import HfApi, errors

    wanted = [*BUNDLE_FILES, CHECKSUMS, "skipped.csv", *(MODEL_FILES if weights else ())]
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    at = f"{name} at {revision}" if revision else name
    try:
        path = api.snapshot_download(
            name, revision=revision, cache_dir=cache_dir, allow_patterns=wanted
        )
    except errors.GatedRepoError:
        raise GatedRepository(
            f"{name} is gated: ask for access on its page, then log in with `hf auth login`"
        ) from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError):
        raise NoSuchRepository(
            f"there is neither a folder {name} nor a repository {at} that you can see."
            " A private one needs `hf auth login`"
        ) from None
    except errors.LocalEntryNotFoundError:
        raise NoNetwork(
            f"the Hub cannot be reached, and the cache does not hold all of {at}"
        ) from None
    except (errors.HfHubHTTPError, ConnectionError) as error:
        raise NoNetwork(f"the Hub did not give {at}: {str(error).splitlines()[0]}") from None
    return Path(path)
