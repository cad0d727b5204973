"""The columns of a dataset beside users and items: behaviours, context, what the catalogue says.

A column is either words, stored as codes into a vocabulary, or numbers, stored as they are: to scale them is to
learn from them, which is for a model to do on what it may see.
"""

from dataclasses import dataclass

import h5py
import numpy as np
import polars as pl

from recloom.dataset.mapped_arrays import mapped
from recloom.dataset.vocabulary import PADDING_INDEX, Vocabulary


@dataclass(frozen=True)
class CategoryColumn:
    """A column of words: `values` are indices into `vocabulary`, `PADDING_INDEX` where the log had none."""

    values: np.ndarray
    vocabulary: Vocabulary


@dataclass(frozen=True)
class NumberColumn:
    """A column of numbers: `values` are float64, NaN where the log had none."""

    values: np.ndarray


ContextColumn = CategoryColumn | NumberColumn


def unknown_value(dtype: np.dtype) -> float:
    """Return what stands for "not known" among values of a column: NaN among numbers, the index 0 among words."""
    return np.nan if dtype.kind == "f" else 0


def encode_column(column: pl.Series) -> ContextColumn:
    """Turn a column of the log into codes or numbers.

    Categories are coded in the order of their words, so that codes do not depend on how the file was read.
    """
    if column.dtype.is_numeric():
        numbers = column.cast(pl.Float64).to_numpy()
        return NumberColumn(np.where(np.isfinite(numbers), numbers, np.nan))
    vocabulary, codes = encode_categories(column)
    return CategoryColumn(codes, vocabulary)


def encode_categories(column: pl.Series, first: Vocabulary | None = None) -> tuple[Vocabulary, np.ndarray]:
    """Number the distinct values of a categorical or text column.

    Args:
        column: Values; null where there is none.
        first: A vocabulary whose indices are kept; values it lacks are appended after it.

    Returns:
        The vocabulary, sorted apart from `first`, and the index of each row, int32 of shape (n,).
    """
    # Polars numbers categories by first appearance, which depends on threads, and its numbers are
    # shared by every column: renumber through a small table rather than row by row.
    if column.dtype != pl.Categorical:
        column = column.cast(pl.Categorical)
    distinct = column.unique().drop_nulls()
    words, codes = distinct.cast(pl.String), distinct.to_physical().to_numpy()
    known_N = np.zeros(len(words), dtype=np.int32)
    if first:
        known_N = first.indices_of(words.to_list())
    is_new_N = known_N == PADDING_INDEX
    new, new_codes = words.filter(is_new_N), codes[is_new_N]
    order = new.arg_sort().to_numpy()
    vocabulary = Vocabulary([*(first.ids if first else ()), *new.gather(order).to_list()])
    index_by_code = np.zeros(int(codes.max()) + 1 if len(codes) else 1, dtype=np.int32)
    index_by_code[codes] = known_N
    index_by_code[new_codes[order]] = np.arange(len(vocabulary) - len(new) + 1, len(vocabulary) + 1)
    physical = column.to_physical()
    indices = index_by_code[physical.fill_null(0).to_numpy()]
    if physical.null_count():
        indices[physical.is_null().to_numpy()] = 0
    return vocabulary, indices


def write_column(parent: h5py.Group, name: str, column: ContextColumn) -> None:
    """Store a column as the group `name` of `parent`."""
    group = parent.create_group(name)
    group.create_dataset("values", data=column.values)
    if isinstance(column, CategoryColumn):
        column.vocabulary.write(group, "vocabulary")


def read_column(group: h5py.Group) -> ContextColumn:
    """Read what `write_column` stored."""
    values = mapped(group["values"])
    if "vocabulary" in group:
        return CategoryColumn(values, Vocabulary.read(group, "vocabulary"))
    return NumberColumn(values)
