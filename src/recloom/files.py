"""Writing so that nothing is lost: beside the target, then renamed into its place; and noticing what was damaged."""

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKSUMS = "SHA256SUMS"
KEY_BYTES = 32
CURRENT = "CURRENT"
"""File of a model that has versions, naming the one that counts."""


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a temporary path beside `target`; what was written there takes its place at the end.

    The path may become a file or a folder. When the block raises, or the process is killed, `target`
    is what it was before; what killed processes left behind is removed by the next write.

    Args:
        target: The file or folder to replace, which need not exist.

    Yields:
        A path in the same folder, so that the rename cannot cross file systems.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in target.parent.glob(f".{target.name}.*.partial"):
        if not _is_running(leftover.name.split(".")[-2]):
            _remove(leftover)
    beside = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        yield beside
        if target.is_dir():
            # A folder cannot be replaced by one rename: the old one steps aside first, and a kill
            # between the two renames is mended by `recover`.
            _remove(_previous(target))
            target.rename(_previous(target))
            beside.rename(target)
            _remove(_previous(target))
        else:
            beside.replace(target)
    finally:
        _remove(beside)


def reserve(path: Path, size: int) -> None:
    """Make sure that there is room for a file before it is written, by taking it.

    HDF5 does not recover when the disk is full in the middle of a file.

    Raises:
        OSError: There is not.
    """
    with path.open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, max(1, size))
        except AttributeError:  # not on every system
            return
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None


def make_key(path: Path) -> None:
    """Write a random key of 32 bytes, in hexadecimal, for its owner's eyes only; one that is there stays."""
    if not path.exists():
        with replacing(path) as beside:
            beside.touch(mode=0o600)
            beside.write_text(f"{secrets.token_hex(KEY_BYTES)}\n", encoding="utf-8")


def current_folder(folder: Path) -> Path:
    """Return the folder of the model that a folder stands for: itself, or its current version."""
    pointer = folder / CURRENT
    return folder / pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else folder


def recover(folder: Path) -> None:
    """Put a folder back that a kill caught between the two renames of `replacing`."""
    if not folder.exists() and _previous(folder).exists():
        _previous(folder).rename(folder)


def write_checksums(folder: Path) -> None:
    """List the SHA-256 of every file of a folder in `SHA256SUMS`, as `sha256sum -c` reads it."""
    lines = [f"{file_digest(path)}  {path.name}\n" for path in sorted(folder.iterdir()) if path.name != CHECKSUMS]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def damaged_file(folder: Path) -> str | None:
    """Return the first file of a folder that is not what `write_checksums` saw, or None."""
    for line in (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        if not (folder / name).is_file() or file_digest(folder / name) != digest:
            return name
    return None


def version_of(folder: Path) -> str | None:
    """Return a short digest of the model that a folder stands for; None where there is none."""
    sums = current_folder(folder) / CHECKSUMS
    return file_digest(sums)[:12] if sums.is_file() else None


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _previous(target: Path) -> Path:
    return target.with_name(f".{target.name}.previous")


def _is_running(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
