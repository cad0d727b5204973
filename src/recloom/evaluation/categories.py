"""Columns of the catalogue, the users and the log -> which categories an item, a user or an interaction belongs to.

Shapes: B cases, I catalogue (with the padding row), C categories.
"""

import numpy as np
import polars as pl
from scipy import sparse

from recloom.config import suggestion
from recloom.dataset import Cases, CategoryColumn, Dataset
from recloom.errors import ConfigError
from recloom.events import VECTOR_PREFIX

SEPARATOR = "|"
"""Between the categories of an item that has several: "Action|Comedy"."""
MOST_CATEGORIES = 500
"""A column of more distinct values than that is text, not categories."""
MOST_SLICES = 8
"""Values of a column that get a slice each, the most frequent among the cases."""


def category_column(dataset: Dataset) -> str | None:
    """Return the catalogue's first column that holds categories, those called so before others."""
    columns = [
        name
        for name, kind in dataset.item_table.schema.items()
        if kind == pl.String and name != "item_id" and not name.startswith(VECTOR_PREFIX)
    ]
    by_name = sorted(columns, key=lambda name: not name.lower().startswith(("genre", "categor", "类别", "分类")))
    for name in by_name:
        num_categories = len(_parts(dataset.item_table[name]).explode().drop_nulls().unique())
        if 2 <= num_categories <= min(MOST_CATEGORIES, len(dataset.items) / 5):
            return name
    return None


def category_shares(dataset: Dataset, column: str) -> tuple[sparse.csr_array, list[str]]:
    """Return how much of an item each category is, shape (I, C), and the categories; an item of two is half of each.

    Raises:
        ConfigError: The catalogue has no such column.
    """
    if column not in dataset.item_table.columns:
        known = dataset.item_table.columns
        raise ConfigError(f"the catalogue has no column {column!r}; {suggestion(column, known)}")
    parts = _parts(dataset.item_table[column])
    long = pl.DataFrame({"item": np.arange(1, len(parts) + 1), "category": parts}).explode("category").drop_nulls()
    categories = long["category"].unique().sort()
    codes = long["category"].cast(pl.Enum(categories)).to_physical().to_numpy()
    items = long["item"].to_numpy()
    shape = (len(parts) + 1, len(categories))
    size_I = np.bincount(items, minlength=shape[0])
    return sparse.csr_array((1 / size_I[items], (items, codes)), shape=shape), categories.to_list()


def history_shares(dataset: Dataset, cases: Cases, share_IC: sparse.csr_array) -> np.ndarray:
    """Return how much of each case's history each category is, rows summing to 1 or 0; shape (B, C)."""
    length_B = cases.history_end - cases.history_start
    rows = np.repeat(np.arange(len(cases)), length_B)
    starts = np.repeat(cases.history_start - np.cumsum(length_B) + length_B, length_B)
    items = dataset.item_index[starts + np.arange(len(rows))]
    had = sparse.csr_array((np.ones(len(rows)), (rows, items)), shape=(len(cases), share_IC.shape[0]))
    share_BC = (had @ share_IC).toarray()
    return share_BC / np.maximum(share_BC.sum(axis=1, keepdims=True), 1e-12)


def column_slices(dataset: Dataset, cases: Cases, column: str) -> dict[str, np.ndarray]:
    """Return which cases belong to each value of a column, by "column = value".

    A column of the catalogue speaks of the item that was to be found, one of the users of who is asked, one of the log
    of the interaction that was to be found.

    Raises:
        ConfigError: There is no such column, or it holds numbers.
    """
    if column in dataset.item_table.columns:
        share_IC, names = category_shares(dataset, column)
        belongs_BC = share_IC[dataset.item_index[cases.target]].toarray() > 0
    elif column in dataset.user_table.columns:
        values = category_words(dataset.user_table[column])
        names = values.drop_nulls().unique().sort().to_list()
        chosen = np.array(["" if v is None else v for v in values.to_list()], dtype=object)[cases.user_index - 1]
        belongs_BC = chosen[:, None] == np.array(names, dtype=object)[None]
    elif isinstance(coded := {"behavior": dataset.behavior, **dataset.context}.get(column), CategoryColumn):
        names = list(coded.vocabulary.ids)
        belongs_BC = coded.values[cases.target][:, None] == np.arange(1, len(names) + 1)
    else:
        words = {name for name, values in dataset.context.items() if isinstance(values, CategoryColumn)}
        known = sorted({*dataset.item_table.columns, *dataset.user_table.columns, "behavior", *words})
        raise ConfigError(f"no column {column!r} of words to slice by; {suggestion(column, known)}")
    frequent = np.argsort(-belongs_BC.sum(axis=0), kind="stable")[:MOST_SLICES]
    return {f"{column} = {names[c]}": belongs_BC[:, c] for c in frequent if belongs_BC[:, c].any()}


def category_words(column: pl.Series) -> pl.Series:
    """Return a column as words; whole numbers are written without a fraction."""
    if column.dtype.is_float():
        column = column.fill_nan(None)
        if (column == column.round()).all():
            column = column.cast(pl.Int64, strict=False)
    return column.cast(pl.String)


def _parts(column: pl.Series) -> pl.Series:
    """Return the list of categories of each row, null where there is none."""
    text = category_words(column).str.strip_chars().replace("", None)
    return text.str.split(SEPARATOR)
