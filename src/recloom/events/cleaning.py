"""Which interactions are left out, and why."""

from dataclasses import dataclass

import polars as pl

from recloom.errors import ConfigError
from recloom.events.columns import ITEM_ID, TIMESTAMP, USER_ID

MILLISECONDS = "__milliseconds"
FILE = "__file"
REASON = "reason"


@dataclass(frozen=True, kw_only=True)
class CleaningConfig:
    """What to drop beside rows that cannot be used at all: the [cleaning] table of a run file."""

    drop_duplicates: bool = True
    """Drop a row that repeats another in every column."""
    repeat_seconds: int = 0
    """Drop an interaction with the same user, item and behaviour as one at most so many seconds before. 0: keep."""
    max_events_per_hour: int = 0
    """Drop users who ever have more interactions than this within one hour by the clock: robots. 0: keep."""
    min_interactions: int = 0
    """Drop users and items with fewer interactions, until none is left that has fewer (the k-core). 0: keep."""

    def __post_init__(self) -> None:
        for name in ("repeat_seconds", "max_events_per_hour", "min_interactions"):
            if getattr(self, name) < 0:
                raise ConfigError(f"cleaning.{name} is {getattr(self, name)}; it has to be 0 (off) or more")


def clean(table: pl.DataFrame, config: CleaningConfig) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
    """Drop what the config says from interactions sorted by user and time.

    Returns:
        The rows that stay, and for each rule the rows it dropped, with their reason.
    """
    dropped: list[pl.DataFrame] = []

    def drop(table: pl.DataFrame, bad: pl.Expr, reason: str) -> pl.DataFrame:
        marked = table.select(bad.fill_null(False).alias("bad"))["bad"]
        if not marked.any():
            return table
        dropped.append(table.filter(marked).with_columns(pl.lit(reason).alias(REASON)))
        return table.filter(~marked)

    if config.drop_duplicates:
        table = drop(table, _is_duplicate(table), "exact duplicate")
    if config.repeat_seconds:
        same = [USER_ID, ITEM_ID, "behavior"]
        since = pl.col(MILLISECONDS) - pl.col(MILLISECONDS).shift(1).over(same)
        table = drop(table, since <= config.repeat_seconds * 1000, f"repeat within {config.repeat_seconds} s")
    if config.max_events_per_hour:
        rated = table.with_columns(pl.len().over(USER_ID, pl.col(TIMESTAMP) // 3600).alias("__rate"))
        is_robot = pl.col("__rate").max().over(USER_ID) > config.max_events_per_hour
        table = drop(rated, is_robot, "implausible rate").drop("__rate")
    while config.min_interactions > 1:
        too_few = (pl.len().over(USER_ID) < config.min_interactions) | (
            pl.len().over(ITEM_ID) < config.min_interactions
        )
        rest = drop(table, too_few, f"fewer than {config.min_interactions} interactions of the user or item")
        if len(rest) == len(table):
            break
        table = rest
    return table, dropped


def _is_duplicate(table: pl.DataFrame) -> pl.Expr:
    """Mark every row that is equal to one before it, looking only at rows that share user and time with a neighbour.

    Most logs have few of those, and comparing whole rows of 20 million takes gigabytes.
    """
    same_as_previous = (pl.col(USER_ID) == pl.col(USER_ID).shift(1)) & (
        pl.col(MILLISECONDS) == pl.col(MILLISECONDS).shift(1)
    )
    shares = table.select((same_as_previous | same_as_previous.shift(-1)).fill_null(False).alias("shares"))["shares"]
    columns = [name for name in table.columns if name not in ("__line", FILE)]
    suspects = table.with_row_index("__row").filter(shares)
    repeated = suspects.filter(~suspects.select(columns).select(pl.struct(pl.all()).is_first_distinct()).to_series())
    return pl.int_range(pl.len()).is_in(repeated["__row"].cast(pl.Int64).implode())
