"""Folders that are whole or absent: checksummed on reading, replaced in one step on writing."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

CHECKSUMS = "SHA256SUMS"
_MOST_BYTES = 4 * 2**30  # of a file that is read whole; weights are not


class FolderDamaged(ValueError):
    """A file is missing, unlisted or not what its checksum says."""


def checked_files(
    folder: Path,
    required: Iterable[str],
    optional: Iterable[str] = (),
    editable: Iterable[str] = (),
    read: Iterable[str] = (),
) -> dict[str, bytes]:
    """Bytes of the required files, after comparing every file with `SHA256SUMS`.

    And of those optional ones in `read` that are there.

    A listed optional file may be absent (weights are not needed for browsing), but if it is there
    it must be the one that was listed. Files that are not listed are refused, hidden ones at the
    top aside. Those in `editable` need be neither listed nor as they were.
    Raises `FolderDamaged` naming the first file that is wrong; no other is opened.
    """
    required, editable, read = tuple(required), tuple(editable), tuple(read)
    known = {*required, *optional}
    files = regular_files(folder)
    if CHECKSUMS not in files:
        raise FolderDamaged(f"{folder} holds no {CHECKSUMS}: this is no exported bundle")
    sums = _parse(_bounded_bytes(files.pop(CHECKSUMS)), folder)
    for name in required:
        if name not in sums:
            raise FolderDamaged(f"{folder}/{CHECKSUMS} does not list {name}: download it again")
    for name in sums.keys() - known:
        raise FolderDamaged(f"{folder}/{CHECKSUMS} lists {name!r}, which no bundle has")
    for name in files.keys() - sums.keys() - {*editable}:
        raise FolderDamaged(
            f"{folder} holds {name}, which {CHECKSUMS} does not list: remove it, or download the "
            "bundle again"
        )
    contents = {}
    for name, expected in sums.items():
        if name not in files:
            if name in required:
                raise FolderDamaged(f"{folder}/{name} is missing: download it again")
            continue
        wanted = name in required or name in read
        data = _bounded_bytes(files[name]) if wanted else b""
        found = hashlib.sha256(data).hexdigest() if wanted else file_sha256(files[name])
        if found != expected and name not in editable:
            raise FolderDamaged(
                f"{folder}/{name} has SHA-256 {found[:12]}, {CHECKSUMS} says {expected[:12]}:"
                " the file was changed or damaged, export or download it again"
            )
        if wanted:
            contents[name] = data
    return contents


def regular_files(folder: Path) -> dict[str, Path]:
    """Every file in a folder by its name there, hidden ones at the top (.git, .cache) left out.

    Raises `FolderDamaged` for links, pipes and devices, before anything is opened. The Hub's cache
    is made of links: those of a snapshot may lead to the blobs beside it.
    """
    if not folder.is_dir():
        raise FolderDamaged(f"{folder} is not a folder")
    blobs = folder.resolve().parent.parent / "blobs"
    files = {}
    for place, folders, names in os.walk(folder):
        if Path(place) == folder:
            folders[:] = [name for name in folders if not name.startswith(".")]
            names = [name for name in names if not name.startswith(".")]
        for path in (Path(place, name) for name in (*folders, *names)):
            target = path
            if path.is_symlink() and is_snapshot(folder) and path.resolve().parent == blobs:
                target = path.resolve()
            mode = target.lstat().st_mode
            if stat.S_ISREG(mode):
                files[path.relative_to(folder).as_posix()] = path
            elif not stat.S_ISDIR(mode):
                raise FolderDamaged(
                    f"{path} is {'a link' if stat.S_ISLNK(mode) else 'no file'}: a bundle is made "
                    "of plain files and folders"
                )
    return files


def is_snapshot(folder: Path) -> bool:
    """Whether a folder is a snapshot in the Hub's cache."""
    return folder.resolve().parent.name == "snapshots"


def _bounded_bytes(path: Path) -> bytes:
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise FolderDamaged(f"{path} has {size:,} bytes: expected at most {_MOST_BYTES:,}")
    return path.read_bytes()


def checksum_lines(sums: Mapping[str, str]) -> str:
    """The text of `SHA256SUMS` (the format of `sha256sum`), sorted by name."""
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))


def replace_folder(
    folder: Path,
    files: Mapping[str, bytes | Path],
    owned: Iterable[str],
    listed: Iterable[str],
    scratch: Path | None = None,
) -> None:
    """Make `folder` hold exactly `files`, plus what it held that is not in `owned`, in one step.

    A file is given by its bytes, or by the path of one to copy. A link stays, and leads to the new
    folder.
    `SHA256SUMS` is written over those of the names in `listed` that are there. The new folder is
    completed in `scratch`, a folder of the same file system (default: beside the old one), flushed
    to disk and exchanged with it. What a kill leaves behind lies in `scratch`.
    """
    folder = Path(os.path.realpath(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=scratch or folder.parent))
    try:
        new.chmod(0o755)
        if folder.is_dir():
            _keep(folder, new, {*owned, *files})
        for name, data in files.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(data, Path):
                shutil.copyfile(data, new / name)
            else:
                (new / name).write_bytes(data)
        sums = {n: file_sha256(new / n) for n in listed if (new / n).is_file()}
        (new / CHECKSUMS).write_text(checksum_lines(sums))
        for path in sorted(new.rglob("*"), reverse=True):
            _flush(path)
        _flush(new)
        if folder.exists():
            _exchange(new, folder)
        else:
            os.rename(new, folder)
        _flush(folder.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write one file so that a reader sees the old bytes or the new ones."""
    write_together({path: data})


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write files so that a full disk leaves the old ones, and no part of a new one."""
    parts = {path.with_name(f".{path.name}.{os.getpid()}"): path for path in files}
    try:
        for part, path in parts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(part, "wb") as file:
                file.write(files[path])
                file.flush()
                os.fsync(file.fileno())
        for part, path in parts.items():
            os.replace(part, path)
    finally:
        for part in parts:
            with suppress(OSError):
                part.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parse(listing: bytes, folder: Path) -> dict[str, str]:
    """Names and checksums; anything but the exact text that `checksum_lines` writes is damage."""
    try:
        rows = [line.split("  ", 1) for line in listing.decode("ascii").splitlines()]
        sums = {name: digest for digest, name in rows}
    except ValueError:
        sums = {}
    if not sums or checksum_lines(sums).encode() != listing:
        raise FolderDamaged(f"{folder}/{CHECKSUMS} is damaged: export or download it again")
    return sums


def _keep(old: Path, new: Path, replaced: set[str]) -> None:
    for path in sorted(old.rglob("*")):
        name = path.relative_to(old).as_posix()
        if path.is_file() and name not in replaced:
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, new / name)
            except OSError:  # a file system without hard links
                shutil.copy2(path, new / name)


def _exchange(new: Path, old: Path) -> None:
    """Swap two folders; atomic on Linux, elsewhere two renames (a moment without the folder)."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is not None:
        here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
        if renameat2(here, os.fsencode(new), here, os.fsencode(old), swap) == 0:
            return
        if ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(old))
    aside = new.with_name(f"{new.name}.old")
    os.rename(old, aside)
    os.rename(new, old)
    os.rename(aside, new)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
