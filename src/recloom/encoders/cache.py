"""Vectors already computed, kept in one HDF5 file: a group for each encoder, a key for each text."""

import os
import shutil
import warnings
from collections.abc import Sequence
from hashlib import blake2b, sha256
from pathlib import Path

import h5py
import numpy as np

from recloom.files import replacing

CACHE_VERSION = 1
_ROWS_PER_CHUNK = 1024
_KEY_BYTES = 16


class EmbeddingCache:
    """The vectors of one encoder in a cache file, which several encoders and processes may share.

    A file is never changed in place: new vectors are added to a copy, which is renamed, so that a reader or a
    kill meets a whole file. Of two processes that write at once, the last one's vectors stay. A cache that
    cannot be read or written costs time, never a result: it warns and goes on without.
    """

    def __init__(self, path: Path, fingerprint: str, embedding_dim: int) -> None:
        self.path = path
        self._fingerprint = fingerprint
        self._group = sha256(fingerprint.encode()).hexdigest()[:32]
        self._embedding_dim = embedding_dim
        self._is_writable = True

    def find(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Look texts up.

        Returns:
            Which of the texts are there, shape (N,), and their vectors, shape (number found, E).
        """
        nothing = np.zeros(len(texts), dtype=bool), np.zeros((0, self._embedding_dim), dtype=np.float32)
        if not self.path.exists():
            return nothing
        try:
            with h5py.File(self.path, "r") as file:
                if self._group not in file:
                    return nothing
                group = self._checked(file[self._group])
                is_found, rows = _match(_keys(texts), _read_keys(group))
                return is_found, _read_rows(group["vectors"], rows)
        except PermissionError as error:
            _warn(f"the embedding cache {self.path} cannot be read ({error.strerror}); going on without it")
        except (OSError, KeyError, ValueError, RuntimeError):
            # h5py raises any of these for a file that is truncated, overwritten, or fails its checksums.
            self._set_aside()
        return nothing

    def add(self, texts: Sequence[str], vectors_NE: np.ndarray) -> None:
        """Keep the vectors of texts that `find` did not find."""
        if not self._is_writable:
            return
        try:
            with replacing(self.path) as beside:
                if self.path.exists():
                    shutil.copyfile(self.path, beside)
                with h5py.File(beside, "a") as file:
                    self._append(file, _keys(texts), vectors_NE)
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            self._is_writable = False  # one warning is enough
            _warn(f"the embedding cache {self.path} cannot be written ({error}); the vectors are not kept")

    def _append(self, file: h5py.File, keys: np.ndarray, vectors_NE: np.ndarray) -> None:
        group = self._checked(file[self._group]) if self._group in file else self._create_group(file)
        is_new = ~_match(keys, _read_keys(group))[0]  # another process may have been faster
        begin, added = len(group["keys"]), int(is_new.sum())
        for name, values in (("keys", keys[is_new].view(np.uint8).reshape(added, -1)), ("vectors", vectors_NE[is_new])):
            group[name].resize(begin + added, axis=0)
            group[name][begin:] = values

    def _create_group(self, file: h5py.File) -> h5py.Group:
        group = file.create_group(self._group)
        group.attrs.update(version=CACHE_VERSION, fingerprint=self._fingerprint, embedding_dim=self._embedding_dim)
        for name, width, dtype in (("keys", _KEY_BYTES, np.uint8), ("vectors", self._embedding_dim, np.float32)):
            # Fletcher32: bytes that rotted on disk are an error when read, not a strange vector.
            group.create_dataset(
                name, (0, width), dtype, maxshape=(None, width), chunks=(_ROWS_PER_CHUNK, width), fletcher32=True
            )
        return group

    def _checked(self, group: h5py.Group) -> h5py.Group:
        if group.attrs["version"] != CACHE_VERSION or len(group["keys"]) != len(group["vectors"]):
            raise ValueError("another version, or keys and vectors that disagree")
        return group

    def _set_aside(self) -> None:
        aside = self.path.with_name(f"{self.path.stem}.damaged{self.path.suffix}")
        try:
            os.replace(self.path, aside)
        except OSError:
            self._is_writable = False
        _warn(f"the embedding cache {self.path} cannot be read; it was set aside as {aside.name} and is built anew")


def _keys(texts: Sequence[str]) -> np.ndarray:
    digests = b"".join(
        blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_KEY_BYTES).digest() for text in texts
    )
    return np.frombuffer(digests, dtype=f"S{_KEY_BYTES}")


def _read_keys(group: h5py.Group) -> np.ndarray:
    return np.ascontiguousarray(group["keys"][:]).view(f"S{_KEY_BYTES}").ravel()


def _match(wanted: np.ndarray, stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which of the wanted keys are stored, and the rows of those that are."""
    if not len(stored):
        return np.zeros(len(wanted), dtype=bool), np.zeros(0, dtype=np.intp)
    order = np.argsort(stored)
    rows = order[np.searchsorted(stored, wanted, sorter=order).clip(max=len(stored) - 1)]
    is_found = stored[rows] == wanted
    return is_found, rows[is_found]


def _read_rows(vectors: h5py.Dataset, rows: np.ndarray) -> np.ndarray:
    """Read rows in any order, touching each chunk once: h5py's own lists of rows are slow."""
    found = np.empty((len(rows), vectors.shape[1]), dtype=np.float32)
    chunk_of_row = rows // _ROWS_PER_CHUNK
    for chunk in np.unique(chunk_of_row):
        begin = int(chunk) * _ROWS_PER_CHUNK
        is_inside = chunk_of_row == chunk
        found[is_inside] = vectors[begin : begin + _ROWS_PER_CHUNK][rows[is_inside] - begin]
    return found


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=3)
