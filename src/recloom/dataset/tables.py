"""Tables of items and users in HDF5, one column after the other."""

import h5py
import numpy as np
import polars as pl

from recloom.dataset.text_storage import read_texts, write_texts


def write_table(parent: h5py.Group, name: str, table: pl.DataFrame) -> None:
    """Store the text and number columns of a table, in order; null text becomes ""."""
    group = parent.create_group(name, track_order=True)
    for column in table:
        if column.dtype.is_numeric():
            group.create_dataset(_escape(column.name), data=column.cast(pl.Float64).to_numpy())
        else:
            write_texts(group, _escape(column.name), column.cast(pl.String).fill_null("").to_list())


def read_table(group: h5py.Group) -> pl.DataFrame:
    """Read what `write_table` stored; a number that was missing is null."""
    columns = []
    for key, stored in group.items():
        name = _unescape(key)
        if isinstance(stored, h5py.Dataset):
            columns.append(pl.Series(name, np.asarray(stored[:]), dtype=pl.Float64).fill_nan(None))
        else:
            columns.append(pl.Series(name, read_texts(stored), dtype=pl.String))
    return pl.DataFrame(columns)


def _escape(column_name: str) -> str:
    # HDF5 takes "/" for a folder.
    return column_name.replace("%", "%25").replace("/", "%2F")


def _unescape(key: str) -> str:
    return key.replace("%2F", "/").replace("%25", "%")
