"""Files of what people did -> one validated log, with an account of what was left out and why."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from recloom.errors import DataError
from recloom.events.cleaning import CleaningConfig, clean
from recloom.events.columns import (
    BEHAVIOR,
    DEFAULT_BEHAVIOR,
    EXTRA,
    FILE,
    ITEM_ID,
    LINE,
    REASON,
    TIMESTAMP,
    USER_ID,
    WEIGHT,
)
from recloom.events.sources import Source
from recloom.events.tables import (
    Interactions,
    ReadReport,
    RecognisedFile,
    count_by_reason,
    is_number,
    named,
    open_files,
    reason_of,
    rejected,
    text,
)
from recloom.events.timestamps import ACCEPTED, LACKS_ZONE, MILLISECONDS, TIMES, read_times

MILLISECONDS_PER_DAY = 86_400_000
_NEEDED = (USER_ID, ITEM_ID, TIMESTAMP)
_RECOGNISED = (*_NEEDED, BEHAVIOR, WEIGHT)
_NOT_CONTEXT = (*_NEEDED, BEHAVIOR, LINE, EXTRA)
_REJECT_COLUMNS = (USER_ID, ITEM_ID, TIMESTAMP)
_SECONDS = (pl.col(MILLISECONDS) // 1000).alias(TIMESTAMP)
_SPELLED_TIME = "__spelled_time"
"""The time of an unusable row as its file spells it; null in others, to cost little."""


def read_interactions(
    source: Source, *, columns: Mapping[str, str] | None = None, cleaning: CleaningConfig | None = None
) -> Interactions:
    """Read what people did.

    Times up to 1970 or more than a day in the future are impossible and left out, as are rows without user,
    item or readable time, and rows with more fields than the header.

    Args:
        source: A file, a glob, a folder, or several of them.
        columns: Our name -> the file's name, for columns that are not recognised.
        cleaning: What to drop beside rows that cannot be used.

    Raises:
        DataError: A file cannot be used, or no usable row is left.
    """
    files = open_log(source, columns or {})
    numbers = number_columns(verdicts_of(file) for file in files)
    table = pl.concat([read_log(file, numbers) for file in files], how="diagonal")
    counts = count_rows(table)
    table, unusable = usable(table)
    table, dropped = clean(in_order(table), cleaning or CleaningConfig())
    rejects = rejects_of([unusable, *dropped])
    reasons = count_by_reason(rejects)
    if table.is_empty():
        raise nothing_usable(named(files), reasons)
    taken_for = {theirs: ours for file in files for theirs, ours in file.names.items()}
    paths = [str(file.path) for file in files]
    report = ReadReport(paths, counts.rows, len(table), reasons, taken_for, notes_of(counts))
    return Interactions(finished(table), report, rejects)


def open_log(source: Source, columns: Mapping[str, str]) -> list[RecognisedFile]:
    """Open the files of a log and find out what their columns are.

    Raises:
        DataError: A file cannot be opened, or lacks a column without which it is of no use.
    """
    return open_files(source, _RECOGNISED, _NEEDED, columns)


def finished(table: pl.DataFrame) -> pl.DataFrame:
    """Return what stays of a log once it is in order and clean, as `Interactions` holds it."""
    context = pl.exclude(USER_ID, ITEM_ID, BEHAVIOR, WEIGHT, MILLISECONDS, LINE, FILE)
    weight = [WEIGHT] if WEIGHT in table.columns else []
    return table.select(USER_ID, ITEM_ID, BEHAVIOR, _SECONDS, *weight, context)


def rejects_of(parts: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Put rows that cannot be used or were cleaned away in one table, as `Interactions` holds it."""
    times = {True: pl.col(_SPELLED_TIME).alias(TIMESTAMP), False: _SECONDS}
    return rejected((part.with_columns(times[_SPELLED_TIME in part.columns]) for part in parts), _REJECT_COLUMNS)


def nothing_usable(files: str, reasons: Mapping[str, int]) -> DataError:
    """Return the error for a log of which nothing is left."""
    listed = ", ".join(f"{n:,} {reason}" for reason, n in reasons.items()) or "no rows below the header"
    return DataError(f"{files} holds nothing usable: {listed}; wanted rows with {', '.join(_NEEDED)}")


def number_columns(verdicts: Iterable[Mapping[str, bool | None]]) -> set[str]:
    """Return the context columns in which every file has nothing but numbers.

    Args:
        verdicts: What each file says of its columns: only numbers, also words, or None where it is empty.
    """
    of_column: dict[str, set[bool | None]] = {}
    for verdict in verdicts:
        for name, is_number_column in verdict.items():
            of_column.setdefault(name, set()).add(is_number_column)
    return {name for name, found in of_column.items() if True in found and False not in found}


def verdicts_of(file: RecognisedFile) -> dict[str, bool | None]:
    """Return for each context column of a file whether it has nothing but numbers; None where it is empty."""
    schema = file.rows.collect_schema()
    context = [name for name in schema if name not in (LINE, EXTRA, *_RECOGNISED)]
    words = [name for name in context if not schema[name].is_numeric()]
    verdicts: dict[str, bool | None] = dict.fromkeys(context, True)
    if words:
        all_numbers = [pl.when(text(name).is_not_null()).then(is_number(text(name))).min() for name in words]
        found = file.collect(file.rows.select(each.alias(name) for name, each in zip(words, all_numbers, strict=True)))
        verdicts |= {name: found[name].item() for name in words}
    return verdicts


def read_log(file: RecognisedFile, numbers: set[str]) -> pl.DataFrame:
    """Read one file, its text as categories, so that a row costs some ten bytes a column.

    Args:
        file: The file.
        numbers: The context columns that hold nothing but numbers, in all files of the log together.
    """
    schema = file.rows.collect_schema()
    spelled = text(TIMESTAMP) if schema[TIMESTAMP] == pl.String else pl.col(TIMESTAMP)
    times = pl.col(TIMESTAMP).map_batches(read_times, return_dtype=TIMES, is_elementwise=True)
    rows = file.rows.with_columns(text(USER_ID), text(ITEM_ID), spelled, times.alias("__times")).unnest("__times")
    rows = rows.with_columns(reason_of(_reasons(has_extra=EXTRA in schema)))
    behavior = text(BEHAVIOR).fill_null(DEFAULT_BEHAVIOR) if BEHAVIOR in schema else pl.lit(DEFAULT_BEHAVIOR)
    kept_spelling = pl.when(pl.col(REASON).is_not_null()).then(pl.col(TIMESTAMP).cast(pl.String))
    table = file.collect(
        rows.select(
            LINE,
            REASON,
            MILLISECONDS,
            LACKS_ZONE,
            kept_spelling.cast(pl.Categorical).alias(_SPELLED_TIME),
            pl.col(USER_ID, ITEM_ID).cast(pl.Categorical),
            behavior.cast(pl.Categorical).alias(BEHAVIOR),
            *(_context(name, name in numbers or name == WEIGHT) for name in schema if name not in _NOT_CONTEXT),
        )
    )
    _require_times(table, file)
    return table


def _reasons(has_extra: bool) -> dict[str, pl.Expr]:
    newest = int(time.time() * 1000) + MILLISECONDS_PER_DAY
    return {
        "too many fields": pl.col(EXTRA).is_not_null() if has_extra else pl.lit(False),
        "missing user_id": pl.col(USER_ID).is_null(),
        "missing item_id": pl.col(ITEM_ID).is_null(),
        "missing timestamp": pl.col(TIMESTAMP).is_null(),
        "unreadable timestamp": pl.col(MILLISECONDS).is_null(),
        "impossible time": ~pl.col(MILLISECONDS).is_between(1, newest),
    }


def _context(name: str, is_number: bool) -> pl.Expr:
    return text(name).cast(pl.Float32, strict=False) if is_number else text(name).cast(pl.Categorical)


def _require_times(table: pl.DataFrame, file: RecognisedFile) -> None:
    unreadable = table[_SPELLED_TIME].drop_nulls()
    if len(unreadable) and table[MILLISECONDS].null_count() == len(table):
        column = next(theirs for theirs, ours in file.names.items() if ours == TIMESTAMP)
        raise DataError(
            f"{file.path} has no readable time in its column {column}: the first is {unreadable[0]!r};"
            f" wanted {ACCEPTED}"
        )


@dataclass(frozen=True)
class RowCounts:
    """What has to be counted of rows as they are read, before some of them are left out."""

    rows: int = 0
    lack_zone: int = 0
    """Times that name no time zone."""
    weighted: bool = False
    """Whether there is a column of weights."""
    lack_weight: int = 0

    def __add__(self, other: "RowCounts") -> "RowCounts":
        # Rows of a file without weights lack one where another file has them.
        lacking = sum(part.lack_weight if part.weighted else part.rows for part in (self, other))
        weighted = self.weighted or other.weighted
        return RowCounts(self.rows + other.rows, self.lack_zone + other.lack_zone, weighted, lacking if weighted else 0)


def count_rows(table: pl.DataFrame) -> RowCounts:
    """Count what `read_part` read."""
    weighted = WEIGHT in table.columns
    return RowCounts(len(table), int(table[LACKS_ZONE].sum()), weighted, table[WEIGHT].null_count() if weighted else 0)


def notes_of(counts: RowCounts) -> list[str]:
    """Return sentences on what was assumed of a log."""
    notes = []
    if counts.lack_zone:
        notes.append(f"{counts.lack_zone:,} of {counts.rows:,} times name no zone; UTC was assumed")
    if counts.weighted and counts.lack_weight:
        notes.append(f"{counts.lack_weight:,} of {counts.rows:,} interactions have no weight that is a number")
    return notes


def usable(table: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Part rows that can be used from those that have a reason not to be."""
    unusable = table.filter(pl.col(REASON).is_not_null())
    if len(unusable):  # otherwise there is nothing to copy
        table = table.filter(pl.col(REASON).is_null())
    return table.drop(REASON, LACKS_ZONE, _SPELLED_TIME), unusable


def in_order(table: pl.DataFrame) -> pl.DataFrame:
    """Bring the rows of each user together, in the order of time; many logs are in that order already."""
    same_user = pl.col(USER_ID) == pl.col(USER_ID).shift(1)
    in_time = pl.col(MILLISECONDS) >= pl.col(MILLISECONDS).shift(1)
    num_runs, num_users, is_in_time = table.select(
        (~same_user).sum() + 1, pl.col(USER_ID).n_unique().alias("users"), (~same_user | in_time).all().alias("in_time")
    ).row(0)
    if num_runs == num_users and is_in_time:
        return table
    return table.sort(USER_ID, MILLISECONDS, maintain_order=True)
