"""Several datasets -> one over all of their catalogues, in which somebody may have a history in more than one."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from recloom.dataset.dataset import Dataset
from recloom.dataset.growing import log_of
from recloom.errors import DataError
from recloom.events import Entities, Interactions

DOMAIN = "domain"
"""Column of the joined catalogue that names the dataset an item comes from."""


def join(datasets: Mapping[str, Dataset], *, same_people: bool = False, out: str | Path | None = None) -> Dataset:
    """Put the catalogues, people and logs of several datasets into one.

    Item ids become `NAME:ID`, so that they cannot clash, and user ids too unless these are the same people. What only
    one of them has a column for is unknown in the others; a column of words in one and numbers in another holds words.

    Args:
        datasets: By the name of their domain.
        same_people: Whether a user id means the same person everywhere. What several user tables say of somebody is
            taken from the first that says it.
        out: The folder to keep `dataset.h5` in. Without one the dataset lives as long as this object.

    Raises:
        DataError: User ids are pseudonyms that do not stay what they are, or a catalogue has a column `domain`,
            there is no dataset, or a name has a colon.
    """
    if not datasets:
        raise DataError("there is no dataset to join; name some")
    if named := [name for name in datasets if ":" in name]:
        raise DataError(f"the name {named[0]!r} has a colon, which parts names from ids; give it another")
    key = _common_key(datasets, same_people)
    logs, catalogues, people = [], [], []
    for name, dataset in datasets.items():
        if DOMAIN in dataset.item_table.columns:
            raise DataError(f"the catalogue of {name} has a column {DOMAIN!r} of its own; prepare it with another name")
        item_id = pl.format("{}:{}", pl.lit(name), pl.col("item_id").cast(pl.String)).alias("item_id")
        own_id = pl.col("user_id").cast(pl.String)
        user_id = own_id if same_people else pl.format("{}:{}", pl.lit(name), own_id).alias("user_id")
        logs.append(log_of(dataset).with_columns(user_id, item_id))
        catalogues.append(dataset.item_table.with_columns(item_id, pl.lit(name).alias(DOMAIN)))
        people.append(dataset.user_table.with_columns(user_id))
    log = _stacked(logs)
    if "weight" in log.columns:
        log = log.with_columns(pl.col("weight").fill_null(1.0))
    words = [column for column, dtype in log.schema.items() if dtype == pl.String]
    log = log.sort("user_id", "timestamp", maintain_order=True).with_columns(pl.col(words).cast(pl.Categorical))
    users = _stacked(people)
    said = [pl.col(name).drop_nulls().first() for name in users.columns if name != "user_id"]
    users = users.group_by("user_id", maintain_order=True).agg(said)
    return Dataset.from_tables(
        Interactions.of(log), Entities.of(_stacked(catalogues)), Entities.of(users), out=out, pseudonym_key_id=key
    )


def _common_key(datasets: Mapping[str, Dataset], same_people: bool) -> str:
    """Return the key that all user ids are pseudonyms of, "" where none are."""
    keys = {dataset.pseudonym_key_id for dataset in datasets.values()}
    if keys != {""} and (len(keys) > 1 or not same_people):
        raise DataError(
            "user ids are pseudonyms, and would be known by no key once they are joined; prepare all of them with the"
            " same --pseudonym-key and join them with --same-people"
        )
    return keys.pop()


def _stacked(tables: list[pl.DataFrame]) -> pl.DataFrame:
    """Put tables below each other; a column that holds words somewhere holds words."""
    are_words = {n for table in tables for n, dtype in table.schema.items() if not dtype.is_numeric()}
    spelled = [table.with_columns(_spelled(table[n]) for n in table.columns if n in are_words) for table in tables]
    return pl.concat(spelled, how="diagonal_relaxed")


def _spelled(column: pl.Series) -> pl.Series:
    """Return a column as words; whole numbers without a point, as a log spells them."""
    if column.dtype.is_float() and (column.drop_nulls() % 1 == 0).all():
        column = column.cast(pl.Int64, strict=False)
    return column.cast(pl.String)
