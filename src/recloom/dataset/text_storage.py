"""Lists of texts in HDF5: one array of UTF-8 bytes and one of offsets.

HDF5's own variable-length strings cost a Python object and a heap entry each; a million titles
open in milliseconds this way.
"""

from collections.abc import Sequence
from itertools import pairwise

import h5py
import numpy as np


def write_texts(parent: h5py.Group, name: str, texts: Sequence[str]) -> None:
    """Store texts, in order, as the group `name` of `parent`."""
    encoded = [text.encode() for text in texts]
    offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    group = parent.create_group(name)
    group.create_dataset("offsets", data=offsets)
    group.create_dataset("utf8", data=np.frombuffer(b"".join(encoded), dtype=np.uint8))


def read_texts(group: h5py.Group) -> list[str]:
    """Read what `write_texts` stored."""
    offsets = group["offsets"][:].tolist()
    utf8 = group["utf8"][:].tobytes()
    return [utf8[start:end].decode() for start, end in pairwise(offsets)]


def concatenate_texts(parent: h5py.Group, name: str, parts: Sequence[h5py.Group]) -> None:
    """Store the texts of several groups, one after the other, without reading them as texts."""
    group = parent.create_group(name)
    sizes = [part["utf8"].shape[0] for part in parts]
    begins = np.cumsum([0, *sizes])
    ends = [part["offsets"][1:] + begin for part, begin in zip(parts, begins, strict=False)]
    group.create_dataset("offsets", data=np.concatenate([[0], *ends]).astype(np.int64))
    utf8 = group.create_dataset("utf8", (int(begins[-1]),), np.uint8)
    for part, begin, size in zip(parts, begins, sizes, strict=False):
        utf8[begin : begin + size] = part["utf8"][:]
