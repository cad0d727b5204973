"""What encoders make of the catalogue: embeddings of text, and of whatever else there is of an item.

Shapes: N items asked for, I catalogue (with the padding row), E width of embeddings.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from recloom.encoders import Problems, item_texts, item_titles, modality_cells


@dataclass(frozen=True)
class Modality:
    """What the catalogue gives of each item beside text, such as a picture: one vector an item."""

    name: str
    """The catalogue's column: `image`, or `vector:NAME`."""
    vectors_IE: np.ndarray
    """float32; all zero for an item without one."""
    read: Callable[[Sequence[str]], tuple[np.ndarray, Problems]]
    """Cells of the column in; vectors as `vectors_IE` has them, and what could not be used, out."""
    made_by: str = ""
    """Fingerprint of the encoder; "" where the vectors are the user's own."""


Said = tuple[str | None, ...]
"""What a catalogue says of an item: its text, then the cell of each further modality; None for what is known."""


@dataclass(frozen=True)
class ItemText:
    """What the language model makes of the catalogue, and the way to have it read more.

    Row and position 0 belong to padding, as everywhere.
    """

    vectors_IE: np.ndarray
    """One embedding an item, float32; all zero for an item without text."""
    titles: list[str]
    """What to call each item: its title, or "" where the catalogue gives nothing to call it by."""
    read: Callable[[Sequence[str]], np.ndarray]
    """Texts in, embeddings out: the same encoder that made `vectors_IE`."""
    others: tuple[Modality, ...] = ()
    """What there is beside text, in alphabetical order."""

    @classmethod
    def without_words(cls, titles: list[str], others: tuple[Modality, ...]) -> "ItemText":
        """Return what there is of a catalogue that has modalities and no text that is read."""
        nothing = np.zeros((len(titles), 1), dtype=np.float32)
        return cls(nothing, titles, lambda texts: np.zeros((len(texts), 1), dtype=np.float32), others)

    @property
    def leading_vectors(self) -> np.ndarray:
        """What items are compared by where one embedding has to do: that of text, or of what comes first without it."""
        return self.others[0].vectors_IE if self.others and not self.vectors_IE.any() else self.vectors_IE

    @property
    def all_vectors(self) -> list[np.ndarray]:
        """The embeddings of text, then those of each further modality."""
        return [self.vectors_IE, *(other.vectors_IE for other in self.others)]

    def with_vectors(self, vectors: Sequence[np.ndarray], titles: list[str]) -> "ItemText":
        """Return the same of another catalogue, given what `all_vectors` is there."""
        others = tuple(replace(old, vectors_IE=new) for old, new in zip(self.others, vectors[1:], strict=True))
        return replace(self, vectors_IE=vectors[0], titles=titles, others=others)

    def of_rows(self, rows: np.ndarray, titles: list[str]) -> "ItemText":
        """Return the same of other items, each of which has a row here or is padding."""
        return self.with_vectors([vectors_IE[rows] for vectors_IE in self.all_vectors], titles)

    def grown(self, table: pl.DataFrame, rows: np.ndarray, embedding_NE: np.ndarray) -> "ItemText":
        """Return the same of a catalogue with further rows or changed ones.

        Args:
            table: The catalogue.
            rows: Item indices, of new items or known ones.
            embedding_NE: What `read_said` made of them.
        """
        vectors = []
        for known_IE in self.all_vectors:
            vectors_IE = np.zeros((len(table) + 1, known_IE.shape[1]), dtype=np.float32)
            # Only where there is something: rows that are not written to take no memory.
            np.copyto(vectors_IE[: len(known_IE)], known_IE, where=known_IE.any(axis=1, keepdims=True))
            vectors.append(vectors_IE)
        grown = self.with_vectors(vectors, ["", *item_titles(table)])
        grown.put(rows, embedding_NE)
        return grown

    def put(self, rows: np.ndarray, embedding_NE: np.ndarray) -> None:
        """Take what `read_said` made of some items, in the place of what is known of them."""
        widths = [vectors_IE.shape[1] for vectors_IE in self.all_vectors]
        parts = np.split(embedding_NE, np.cumsum(widths)[:-1], axis=1)
        for vectors_IE, part_NE in zip(self.all_vectors, parts, strict=True):
            vectors_IE[rows] = part_NE

    def said(self, table: pl.DataFrame, template: str | None) -> list[Said]:
        """Return what rows of a catalogue say, as far as it is read here.

        Args:
            table: One row an item.
            template: As for `item_texts`.
        """
        cells = [modality_cells(table, other.name) for other in self.others]
        return list(zip(item_texts(table, template), *cells, strict=True))

    def read_said(self, said: Sequence[Said], rows: Sequence[int]) -> tuple[np.ndarray, dict[str, Problems]]:
        """Read what items say, for `Model.read_items`.

        Args:
            said: Of each item.
            rows: The index of each, looked at where something is known already.

        Returns:
            Embeddings of text and of each further modality side by side, shape (N, E); and what could not be used,
            by modality.
        """
        problems: dict[str, Problems] = {}

        def others_read(other: Modality) -> Callable[[Sequence[str]], np.ndarray]:
            def read(cells: Sequence[str]) -> np.ndarray:
                vectors_NE, wrong = other.read(cells)
                if wrong:
                    problems[other.name] = wrong
                return vectors_NE

            return read

        parts = []
        readers = [self.read, *map(others_read, self.others)]
        for number, (known_IE, read) in enumerate(zip(self.all_vectors, readers, strict=True)):
            part_NE = np.zeros((len(said), known_IE.shape[1]), dtype=np.float32)
            new = {place: one[number] for place, one in enumerate(said) if one[number] is not None}
            if new:
                part_NE[list(new)] = read([cell or "" for cell in new.values()])
            kept = [place for place in range(len(said)) if place not in new]
            part_NE[kept] = known_IE[[rows[place] for place in kept]]
            parts.append(part_NE)
        return np.concatenate(parts, axis=1), problems
