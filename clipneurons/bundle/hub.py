"""From what a user types to a folder: a local path, or a Hub repository pinned to one commit."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from pathlib import Path

from clipneurons.bundle.config import (
    ADDED_FILES,
    BUNDLE_FILES,
    CHECKPOINT_FILES,
    MODEL_FILES,
    PART,
    BundleDamaged,
    BundleError,
)
from clipneurons.bundle.folders import CHECKSUMS

REPOSITORY = re.compile(rf"{PART}/{PART}", re.ASCII)
NAME = re.compile(rf"{PART}/{PART}(@[A-Za-z0-9][\w./-]{{0,95}})?", re.ASCII)
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
    wanted = [*BUNDLE_FILES, CHECKSUMS, "skipped.csv", *ADDED_FILES]
    if weights:
        wanted += [*MODEL_FILES, *CHECKPOINT_FILES]
    folder, _ = download(str(source), wanted, cache_dir)
    if not (folder / CHECKSUMS).is_file():
        raise BundleDamaged(f"the repository {source} holds no {CHECKSUMS}: it is no bundle")
    return folder


def download(
    source: str, wanted: list[str], cache_dir: str | Path | None = None
) -> tuple[Path, str]:
    """The folder of "user/name" or "user/name@revision" with the files wanted, and its commit.

    `wanted` are names, in which * stands for anything. Raises what `resolve` does.
    """
    if not NAME.fullmatch(source):
        raise BundleError(f"{source} does not exist here, and is no {EXPECTED} on the Hub")
    repository, _, revision = source.partition("@")
    with _explained(repository, revision):
        from huggingface_hub import HfApi

        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
        folder = api.snapshot_download(
            repository, revision=revision or None, cache_dir=cache_dir, allow_patterns=wanted
        )
    return Path(folder), Path(folder).name


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
