"""From what a user types to a folder: a local path, or a Hub repository pinned to one commit."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

from clipneurons.bundle.config import (
    ADDED_FILES,
    BUNDLE_FILES,
    CHECKPOINT_FILES,
    MODEL_FILES,
    BundleDamaged,
    BundleError,
)
from clipneurons.bundle.folders import CHECKSUMS

# Neither "." nor "..", no further "/": a name that passes is a part of no path on this machine.
_PART = r"[A-Za-z0-9_][\w.-]{0,95}"
REPOSITORY = re.compile(rf"{_PART}/{_PART}", re.ASCII)
NAME = re.compile(rf"{_PART}/{_PART}(@[A-Za-z0-9][\w./-]{{0,95}})?", re.ASCII)
EXPECTED = "'user/name' or 'user/name@revision'"


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
    if not NAME.fullmatch(str(source)):
        raise BundleError(
            f"{source} does not exist. Expected a bundle's folder, or {EXPECTED}"
            " on the Hugging Face Hub"
        )
    return download(str(source), cache_dir, weights)


def download(
    name: str,
    cache_dir: str | Path | None = None,
    weights: bool = False,
    most_bytes: int | None = None,
    anonymous: bool = False,
) -> Path:
    """The folder of a bundle on the Hub; unlike `resolve`, it never looks for a local folder.

    Args:
        name: "user/name" or "user/name@revision".
        cache_dir: where to keep it; by default the Hub's own cache.
        weights: whether the model's files come too.
        most_bytes: refuse before anything is fetched what is larger.
        anonymous: do not use the token of who runs this, so that only public ones are seen.

    Raises what `resolve` raises.
    """
    if not NAME.fullmatch(name):
        raise BundleError(f"{name!r} is no name of a repository: expected {EXPECTED}")
    repository, _, revision = name.partition("@")
    wanted = [*BUNDLE_FILES, CHECKSUMS, "skipped.csv", *ADDED_FILES]
    if weights:
        wanted += [*MODEL_FILES, *CHECKPOINT_FILES]
    with _explained(repository, revision):
        folder = _fetch(repository, revision or None, wanted, cache_dir, most_bytes, anonymous)
    if not (folder / CHECKSUMS).is_file():
        raise BundleDamaged(f"the repository {repository} holds no {CHECKSUMS}: it is no bundle")
    return folder


def download_model(
    repository: str, files: Sequence[str], cache_dir: str | Path, most_bytes: int
) -> Path:
    """The named files of a public repository "user/name" that holds a model, not a bundle.

    Raises what `resolve` raises for a repository that cannot be had.
    """
    if not REPOSITORY.fullmatch(repository):
        raise BundleError(f"{repository!r} is no name of a repository: expected 'user/name'")
    with _explained(repository, ""):
        return _fetch(repository, None, list(files), cache_dir, most_bytes, anonymous=True)


def is_remote(folder: Path) -> bool:
    """Whether a folder is a snapshot in the Hub's cache, whose card a person may have edited."""
    return folder.parent.name == "snapshots"


def _fetch(
    repository: str, revision: str | None, wanted: list[str], cache_dir, most_bytes,
    anonymous: bool,
) -> Path:  # fmt: skip
    from huggingface_hub import HfApi

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=False if anonymous else None)
    if most_bytes is not None:
        # What is counted is what is fetched: the same commit.
        revision = api.model_info(repository, revision=revision).sha
        tree = api.list_repo_tree(repository, revision=revision, recursive=True)
        # A folder has no size, whatever its name.
        size = sum(getattr(entry, "size", 0) for entry in tree if entry.path in wanted)
        if size > most_bytes:
            raise BundleError(
                f"{repository} holds {size / 2**20:,.0f} MB; expected at most"
                f" {most_bytes / 2**20:,.0f} MB"
            )
    return Path(
        api.snapshot_download(
            repository, revision=revision, cache_dir=cache_dir, allow_patterns=wanted
        )
    )


@contextmanager
def _explained(repository: str, revision: str):
    """Turn the Hub client's errors into ours."""
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx

    at = f"{repository} at {revision}" if revision else repository
    try:
        yield
    except errors.GatedRepoError:
        raise GatedRepository(
            f"{repository} is gated: ask for access on its page, then log in with `hf auth login`"
        ) from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError):
        raise NoSuchRepository(
            f"there is neither a folder {repository} nor a repository {at} that you can see."
            " A private one needs `hf auth login`"
        ) from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        raise NoNetwork(
            f"the Hub cannot be reached, and the cache does not hold all of {at}"
        ) from None
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        raise NoNetwork(f"the Hub did not give {at}: {_refusal(status)}") from None
    except httpx.TimeoutException:
        raise NoNetwork(f"the Hub did not answer in time for {at}: try again later") from None
    except (httpx.HTTPError, ConnectionError):
        raise NoNetwork(
            f"the Hub cannot be reached for {at}: is this machine connected, and does it let"
            " requests to the Hub through?"
        ) from None
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise HubError(f"{at} cannot be kept on this machine: {reason.lower()}") from None


def _refusal(status: int | None) -> str:
    """What an HTTP status of the Hub means for who asked."""
    if status == 429:
        return "too many requests, try again in a few minutes"
    if status is not None and status >= 500:
        return f"it has trouble of its own (status {status}), try again later"
    return f"it refused the request (status {status})" if status else "it gave no answer"
