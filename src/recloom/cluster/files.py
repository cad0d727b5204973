"""Names of files, on this machine's disks or anywhere fsspec reaches -> the same files as local ones, for a while."""

import glob
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recloom.errors import DataError
from recloom.events.sources import SUFFIXES, find_files


@dataclass(frozen=True)
class FileThere:
    """A file, wherever it is."""

    name: str
    """As it was given: a path, or a URL."""
    place: str
    """The same, wherever a process works: a path on a disk that all machines share is whole."""
    size: int
    changed: str
    """What is different once the file is another one: a time, or whatever its store keeps."""


def find_everywhere(sources: Sequence[str]) -> list[FileThere]:
    """Return the files that paths, globs, folders or URLs name, sorted within each.

    Raises:
        DataError: There is no such file, or its store cannot be reached.
    """
    found: dict[str, FileThere] = {}
    for source in sources:
        for file in _find_there(source) if "://" in source else _find_here(source):
            found.setdefault(file.name, file)
    return list(found.values())


def _find_here(source: str) -> list[FileThere]:
    files = []
    for path in find_files(source):
        stat = path.stat()
        files.append(FileThere(str(path), str(path.absolute()), stat.st_size, str(stat.st_mtime_ns)))
    return files


def _find_there(url: str) -> list[FileThere]:
    with _explaining(url):
        system, path = _filesystem(url)
        if glob.has_magic(path):
            paths = system.glob(path)
        elif system.isdir(path):
            paths = [
                name for name in system.ls(path, detail=False) if name.lower().removesuffix(".gz").endswith(SUFFIXES)
            ]
        else:
            paths = [path] if system.exists(path) else []
        infos = [(name, system.info(name)) for name in sorted(paths)]
    files = [(name, info) for name, info in infos if info.get("type", "file") == "file"]
    if not files:
        raise DataError(f"there is no file {url}; give the URL of a file, a folder, or a glob in quotes")
    urls = [(system.unstrip_protocol(name), info) for name, info in files]
    return [FileThere(name, name, int(info["size"] or 0), _changed(info)) for name, info in urls]


def _changed(info: dict[str, Any]) -> str:
    return str(
        next((info[key] for key in ("ETag", "etag", "mtime", "LastModified", "updated", "created") if key in info), "")
    )


@contextmanager
def as_local(place: str) -> Iterator[Path]:
    """Give a file as a local one: itself, or a copy that is gone at the end.

    Raises:
        DataError: It cannot be fetched.
    """
    if "://" not in place:
        yield Path(place)
        return
    with tempfile.TemporaryDirectory(prefix="recloom-") as folder:
        local = Path(folder) / place.rsplit("/", 1)[-1]
        with _explaining(place):
            system, path = _filesystem(place)
            system.get_file(path, str(local))
        yield local


def _filesystem(url: str) -> tuple[Any, str]:
    import fsspec

    return fsspec.core.url_to_fs(url)


@contextmanager
def _explaining(url: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except ImportError as error:
        raise DataError(f"{url} is in a store that needs another package ({error}); install it on all nodes") from None
    except Exception as error:  # every store has errors of its own
        raise DataError(
            f"{url} cannot be fetched ({type(error).__name__}: {error}); check the address and the rights"
        ) from None
