"""A dataset and what happened since -> a larger dataset; and a dataset without some people or items."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from recloom.dataset.columns import CategoryColumn, ContextColumn
from recloom.dataset.dataset import Dataset
from recloom.dataset.splits import Cases
from recloom.errors import DataError
from recloom.events import Entities, Interactions

_IS_NEW = "\0is_new"
"""No log can have a column of this name."""
_WHAT = ["user_id", "item_id", "timestamp", "behavior"]


@dataclass(frozen=True)
class Growth:
    """A dataset that has grown."""

    dataset: Dataset
    is_new_N: np.ndarray
    """Whether each interaction was added, in the order of the flat arrays."""
    num_known: int
    """Interactions of the new log that the dataset had already, and that were left out."""
    notes: list[str]
    """Sentences a person should read."""

    def first_cases(self) -> Cases:
        """Ask for the first new interaction of everybody who had some before."""
        offsets, new = self.dataset.user_offsets, np.flatnonzero(self.is_new_N)
        user, first = np.unique(np.searchsorted(offsets, new, side="right") - 1, return_index=True)
        start, target = offsets[user], new[first]
        asked = target > start
        return Cases(user[asked], start[asked], target[asked], target[asked])


def grow(dataset: Dataset, log: Interactions | None, items: Entities | None, users: Entities | None) -> Growth:
    """Add interactions, and rows of the catalogue and of the users, or replace those of ids that are known.

    Items keep their indices, new ones follow. An interaction with the user, item, time and behaviour of one that is
    there is the same one. Columns that the dataset's log lacks are left out; those that the new log lacks are unknown.

    Args:
        dataset: What is known.
        log: What happened since; None for nothing.
        items: Further rows of the catalogue.
        users: Further rows of the users.

    Raises:
        DataError: A column holds words in one log and numbers in the other.
    """
    known = log_of(dataset)
    notes: list[str] = []
    num_known = 0
    both = known.with_columns(pl.lit(False).alias(_IS_NEW))
    if log is not None:
        told, notes = _with_columns_of(known, log.table)
        # A log that does not say what its interactions were, while the known one does, is compared without that.
        what = _WHAT if told["behavior"].is_in(known["behavior"].unique().implode()).any() else _WHAT[:-1]
        new = told.join(known.select(what), on=what, how="anti", maintain_order="left")
        num_known = len(told) - len(new)
        both = pl.concat([both, new.with_columns(pl.lit(True).alias(_IS_NEW))], how="vertical")
        both = both.sort("user_id", "timestamp", maintain_order=True)
    grown = _stored(
        dataset,
        both.drop(_IS_NEW),
        _replaced(dataset.item_table, items, "item_id"),
        _replaced(dataset.user_table, users, "user_id"),
    )
    # The flat arrays are in the order of user indices.
    user_N = grown.users.indices_of(both["user_id"].cast(pl.String))
    is_new_N = both[_IS_NEW].to_numpy()[np.argsort(user_N, kind="stable")]
    return Growth(grown, is_new_N, num_known, notes)


def without(dataset: Dataset, *, users: Sequence[str] = (), items: Sequence[str] = ()) -> Dataset:
    """Return a dataset in which some people, or some items, and all that happened with them, never were.

    An item that nobody else had, and of which the catalogue says nothing, was known from these people alone, and
    leaves with them.

    Raises:
        DataError: Nothing would be left.
    """
    everything = log_of(dataset)
    is_theirs = pl.col("user_id").cast(pl.String).is_in(users)
    log = everything.filter(~is_theirs, ~pl.col("item_id").cast(pl.String).is_in(items))
    if log.is_empty():
        raise DataError("nothing would be left of the log; delete the dataset and its models instead")
    had = set(everything.filter(is_theirs)["item_id"].unique()) - set(log["item_id"].unique())
    only_theirs = pl.col("item_id").is_in(list(had)) & says_nothing(dataset.item_table)
    return _stored(
        dataset,
        log,
        dataset.item_table.filter(~pl.col("item_id").is_in(items), ~only_theirs),
        dataset.user_table.filter(~pl.col("user_id").is_in(users)),
    )


def says_nothing(catalogue: pl.DataFrame) -> pl.Series:
    """Return which rows have nothing but their id, as those of items that only the log knows."""
    empty = [
        pl.col(name).is_null() | ((pl.col(name) == "") if dtype == pl.String else pl.lit(False))
        for name, dtype in catalogue.schema.items()
        if name != "item_id"
    ]
    return catalogue.select(pl.all_horizontal(pl.col("item_id").is_not_null(), *empty)).to_series()


def log_of(dataset: Dataset) -> pl.DataFrame:
    """Return what people did as `Interactions.table` holds it, in the order of the flat arrays."""
    user_N = np.repeat(np.arange(len(dataset.user_offsets) - 1), np.diff(dataset.user_offsets))
    columns = [
        _words("user_id", user_N, dataset.users.ids),
        _words("item_id", dataset.item_index, dataset.items.ids),
        _spelled("behavior", dataset.behavior),
        pl.Series("timestamp", dataset.timestamp),
    ]
    if dataset.weight is not None:
        columns.append(pl.Series("weight", dataset.weight))
    return pl.DataFrame([*columns, *(_spelled(name, column) for name, column in dataset.context.items())])


def _words(name: str, codes: np.ndarray, words: Sequence[str]) -> pl.Series:
    spelled = pl.Series(name, [None, *words], dtype=pl.String).cast(pl.Categorical)
    return spelled.gather(codes)


def _spelled(name: str, column: ContextColumn) -> pl.Series:
    if isinstance(column, CategoryColumn):
        return _words(name, column.values, column.vocabulary.ids)
    return pl.Series(name, column.values, dtype=pl.Float64).fill_nan(None)


def _with_columns_of(known: pl.DataFrame, log: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Bring a log into the columns of another one."""
    notes = []
    if further := [name for name in log.columns if name not in known.columns]:
        notes.append(f"columns that the model did not learn from were left out: {', '.join(further)}")
    if lacking := [name for name in known.columns if name not in log.columns]:
        notes.append(f"columns that the new log lacks are taken for unknown: {', '.join(lacking)}")
    columns = [
        _alike(log[name], known[name]) if name in log.columns else pl.Series(name, [None] * len(log), dtype)
        for name, dtype in known.schema.items()
    ]
    return pl.DataFrame(columns), notes


def _alike(column: pl.Series, known: pl.Series) -> pl.Series:
    """Bring a column into the type that it has in another log.

    Raises:
        DataError: It holds words where that has numbers.
    """
    if known.dtype.is_numeric():
        numbers = column.cast(pl.String).cast(pl.Float64, strict=False)
        if len(column) > column.null_count() and numbers.null_count() == len(numbers):
            raise DataError(
                f"column {column.name} holds words in the new log, such as {column.drop_nulls()[0]!r}, and numbers in"
                " what the model learned from; bring it as it was, or leave it out"
            )
        return numbers.cast(known.dtype)
    if column.dtype.is_numeric():  # codes such as 1 and 2, among which no other word came up this time
        whole = pl.when(pl.col(column.name) % 1 == 0).then(pl.col(column.name).cast(pl.Int64, strict=False))
        column = column.to_frame().select(pl.coalesce(whole.cast(pl.String), pl.col(column.name).cast(pl.String)))[
            column.name
        ]
    return column.cast(known.dtype)


def _replaced(known: pl.DataFrame, further: Entities | None, key: str) -> pl.DataFrame:
    """Put rows in the place of those of the same id; those of other ids follow."""
    if further is None:
        return known
    rows = further.table
    others = known.join(rows.select(key), on=key, how="anti")
    both = pl.concat([others, rows], how="diagonal_relaxed")
    ids = pl.concat([known.select(key), rows.select(key)]).unique(maintain_order=True)
    return ids.join(both, on=key, how="left", maintain_order="left")


def _stored(like: Dataset, log: pl.DataFrame, items: pl.DataFrame, users: pl.DataFrame) -> Dataset:
    return Dataset.from_tables(
        Interactions.of(log), Entities.of(items), Entities.of(users), pseudonym_key_id=like.pseudonym_key_id
    )
