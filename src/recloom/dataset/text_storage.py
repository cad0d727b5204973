"""Lists of texts in HDF5: one array of UTF-8 bytes and one of offsets.

HDF5's own variable-length strings cost a Python object and a heap entry each; a million titles
open in milliseconds this way.
"""

from collections.abc import Iterable, Sequence
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


def concatenate_texts(parent: h5py.Group, name: str, parts: Iterable[h5py.Group], key: str) -> None:
    """Store texts that several groups hold under a key, one after the other, without reading them as texts.

    The groups are gone through twice.
    """
    offsets = [np.zeros(1, dtype=np.int64)]
    for part in parts:
        offsets.append(part[key]["offsets"][1:] + offsets[-1][-1])
    group = parent.create_group(name)
    group.create_dataset("offsets", data=np.concatenate(offsets))
    utf8 = group.create_dataset("utf8", (int(offsets[-1][-1]),), np.uint8)
    begin = 0
    for part in parts:
        own = part[key]["utf8"][:]
        utf8[begin : begin + len(own)] = own
        begin += len(own)
