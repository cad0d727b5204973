"""Ids as the log spells them, and the rows of the tables that stand for them."""

from collections.abc import Iterable, Sequence
from functools import cached_property

import h5py
import numpy as np

from recloom.dataset.text_storage import read_texts, write_texts

PADDING_INDEX = 0
"""The row that stands for "nothing here" in every table of items, users, behaviours and context values."""


class Vocabulary:
    """A two-way mapping between ids and the indices 1 to len(vocabulary).

    Index 0 is `PADDING_INDEX` and belongs to no id.
    """

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, id_: str) -> bool:
        return id_ in self._index_by_id

    @cached_property
    def _index_by_id(self) -> dict[str, int]:
        return {id_: index for index, id_ in enumerate(self.ids, start=1)}

    def index_of(self, id_: str) -> int:
        """Return the index of an id, or `PADDING_INDEX` for an unknown one."""
        return self._index_by_id.get(id_, PADDING_INDEX)

    def indices_of(self, ids: Iterable[str]) -> np.ndarray:
        """Return the index of every id, shape (n,), int32; `PADDING_INDEX` where unknown."""
        get = self._index_by_id.get
        return np.array([get(id_, PADDING_INDEX) for id_ in ids], dtype=np.int32)

    def id_of(self, index: int) -> str:
        """Return the id at an index from 1 to len(self)."""
        if not 1 <= index <= len(self):
            raise IndexError(f"index {index} is not between 1 and {len(self)}")
        return self.ids[index - 1]

    def write(self, parent: h5py.Group, name: str) -> None:
        """Store the ids under `name` in an open HDF5 group."""
        write_texts(parent, name, self.ids)

    @classmethod
    def read(cls, parent: h5py.Group, name: str) -> "Vocabulary":
        """Read what `write` stored."""
        return cls(read_texts(parent[name]))
