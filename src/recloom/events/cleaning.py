"""Which interactions are left out, and why."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from recloom.errors import ConfigError
from recloom.events.columns import BEHAVIOR, FILE, ITEM_ID, LINE, REASON, USER_ID
from recloom.events.timestamps import MILLISECONDS

_MILLISECONDS_PER_HOUR = 3_600_000


@dataclass(frozen=True, kw_only=True)
class CleaningConfig:
    """What to drop beside rows that cannot be used at all: the [cleaning] table of a run file."""

    drop_duplicates: bool = True
    """Drop a row that repeats another in every column."""
    repeat_seconds: int = 0
    """Drop an interaction with the user, item and behaviour of one kept at most so many seconds before. 0: keep."""
    max_events_per_hour: int = 0
    """Drop users who ever have more interactions than this within one hour by the clock: robots. 0: keep."""
    min_interactions: int = 0
    """Drop users and items with fewer interactions, until none is left that has fewer (the k-core). 0: keep."""

    def __post_init__(self) -> None:
        for name in ("repeat_seconds", "max_events_per_hour", "min_interactions"):
            if getattr(self, name) < 0:
                raise ConfigError(f"cleaning.{name} is {getattr(self, name)}; it has to be 0 (off) or more")


def clean(table: pl.DataFrame, config: CleaningConfig) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
    """Drop what the config says, in the order of its fields.

    Args:
        table: Interactions with the rows of each user together, in the order of time.
        config: The rules.

    Returns:
        The rows that stay, and for each rule the rows it dropped, with their reason.
    """
    dropped: list[pl.DataFrame] = []

    def drop(table: pl.DataFrame, bad: pl.Series, reason: str) -> pl.DataFrame:
        if not bad.any():
            return table
        dropped.append(table.filter(bad).with_columns(pl.lit(reason).alias(REASON)))
        return table.filter(~bad)

    if config.drop_duplicates:
        table = drop(table, _duplicates(table), "exact duplicate")
    if config.repeat_seconds:
        table = drop(table, _repeats(table, config.repeat_seconds), f"repeat within {config.repeat_seconds} s")
    if config.max_events_per_hour:
        table = drop(table, _of_robots(table, config.max_events_per_hour), "implausible rate")
    num_rows = -1
    while config.min_interactions > 1 and len(table) != num_rows:
        num_rows = len(table)
        table = drop(table, _too_few(table, config.min_interactions), "below min-interactions")
    return table, dropped


def _duplicates(table: pl.DataFrame) -> pl.Series:
    """Mark every row that is equal to one before it, comparing only rows that share user and time with a neighbour.

    Most logs have few of those, and comparing whole rows of 20 million takes gigabytes.
    """
    as_previous = (pl.col(USER_ID) == pl.col(USER_ID).shift(1)) & (
        pl.col(MILLISECONDS) == pl.col(MILLISECONDS).shift(1)
    )
    shares = table.select(shares=(as_previous | as_previous.shift(-1)).fill_null(False))["shares"]
    suspects = table.filter(shares).select(pl.struct(pl.exclude(LINE, FILE)).is_first_distinct().alias("is_first"))
    return _marked(len(table), shares.arg_true().filter(~suspects["is_first"]))


def _repeats(table: pl.DataFrame, seconds: int) -> pl.Series:
    """Mark repeats of an interaction that was kept at most `seconds` before."""
    what = [USER_ID, ITEM_ID, BEHAVIOR]
    gap = pl.col(MILLISECONDS) - pl.col(MILLISECONDS).shift(1).over(what)
    is_close = (gap <= seconds * 1000).fill_null(False)
    runs = (
        table.select(*what, MILLISECONDS, row=pl.int_range(pl.len()), close=is_close)
        # Only what has a repeat close behind it is walked through row by row.
        .filter(pl.col("close") | pl.col("close").shift(-1).over(what))
        .sort(*what, "row")
        .select(MILLISECONDS, "row", "close")
    )
    repeats, kept_at = [], 0
    for at, row, close in runs.iter_rows():
        if close and at - kept_at <= seconds * 1000:
            repeats.append(row)
        else:
            kept_at = at
    return _marked(len(table), pl.Series(repeats, dtype=pl.Int64))


def _of_robots(table: pl.DataFrame, max_per_hour: int) -> pl.Series:
    rate = table.select(USER_ID, rate=pl.len().over(USER_ID, pl.col(MILLISECONDS) // _MILLISECONDS_PER_HOUR))
    return rate.select(robot=pl.col("rate").max().over(USER_ID) > max_per_hour)["robot"]


def _too_few(table: pl.DataFrame, minimum: int) -> pl.Series:
    too_few = pl.any_horizontal(pl.len().over(key) < minimum for key in (USER_ID, ITEM_ID))
    return table.select(too_few=too_few)["too_few"]


def _marked(num_rows: int, rows: pl.Series) -> pl.Series:
    marks = np.zeros(num_rows, dtype=bool)
    marks[rows.to_numpy()] = True
    return pl.Series(marks)
