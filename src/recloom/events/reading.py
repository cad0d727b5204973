"""Files in any known format -> one validated table, with an account of what was left out and why."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from recloom.errors import DataError
from recloom.events.cleaning import FILE, MILLISECONDS, REASON, CleaningConfig, clean
from recloom.events.columns import (
    BEHAVIOR,
    DEFAULT_BEHAVIOR,
    IMAGE,
    ITEM_ID,
    TIMESTAMP,
    TITLE,
    USER_ID,
    WEIGHT,
)
from recloom.events.dialects import recognise, require
from recloom.events.sources import EXTRA, LINE, Source, find_files, not_utf8, open_table
from recloom.events.timestamps import ACCEPTED, numeric_milliseconds, parse_text_times

SECONDS_PER_DAY = 86_400
_TEXT_TIME = "__text_time"
_REJECT_COLUMNS = {"file": pl.String, "line": pl.Int64, REASON: pl.String}


@dataclass(frozen=True)
class ReadReport:
    """What was found in the files, and what became of it."""

    files: list[str]
    rows_read: int
    rows_kept: int
    dropped: dict[str, int]
    """Rows left out, by reason."""
    columns: dict[str, str]
    """The files' column names and what each was taken for."""
    notes: list[str] = field(default_factory=list)
    """Sentences a person should read: what was assumed, what looks odd."""


@dataclass(frozen=True)
class Interactions:
    """A validated log.

    `table` has user_id, item_id and behavior as categories, timestamp in UTC seconds, weight where the log has
    one, and every other column as context, numbers or categories; rows are ordered by user, then time, then
    the order of the files. `rejects` has the file, line and reason of each row left out.
    """

    table: pl.DataFrame
    report: ReadReport
    rejects: pl.DataFrame


@dataclass(frozen=True)
class Entities:
    """A validated table of items or of users: one row for each id, text and number columns, missing values null."""

    table: pl.DataFrame
    report: ReadReport
    rejects: pl.DataFrame


def read_tables(
    interactions: Source,
    items: Source | None = None,
    users: Source | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    cleaning: CleaningConfig | None = None,
) -> tuple[Interactions, Entities | None, Entities | None]:
    """Read a log, its catalogue and its users, each column of `columns` being looked for in all of them.

    Raises:
        DataError: A file cannot be used, or a column of `columns` is in none of them.
    """
    columns = columns or {}
    headers = [set(_header(source)) if columns and source else set() for source in (interactions, items, users)]
    for name, column in columns.items():
        if not any(column in header for header in headers):
            found = ", ".join(sorted(set().union(*headers)))
            raise DataError(f"there is no column {column!r} to use as {name}; found {found}")
    of_log, of_items, of_users = ({n: c for n, c in columns.items() if c in header} for header in headers)
    return (
        read_interactions(interactions, columns=of_log, cleaning=cleaning),
        read_items(items, columns=of_items) if items else None,
        read_users(users, columns=of_users) if users else None,
    )


def read_interactions(
    source: Source, *, columns: Mapping[str, str] | None = None, cleaning: CleaningConfig | None = None
) -> Interactions:
    """Read what people did.

    Args:
        source: A file, a glob, a folder, or several of them.
        columns: Our name -> the file's name, for columns that are not recognised.
        cleaning: What to drop beside rows that cannot be used.

    Raises:
        DataError: A file cannot be used, or no usable row is left.
    """
    files = find_files(source)
    taken_for: dict[str, str] = {}
    good, rejects, rows_read, no_zone = [], [], 0, False
    for path in files:
        kept, bad, count, assumed_utc = _read_log(path, columns or {}, taken_for)
        rows_read, no_zone = rows_read + count, no_zone or assumed_utc
        good.append(kept.with_columns(pl.lit(path.name).cast(pl.Categorical).alias(FILE)))
        rejects.append(bad.with_columns(pl.lit(path.name).alias(FILE)))
    del kept
    table = pl.concat(good, how="diagonal") if len(good) > 1 else good[0]
    good.clear()
    if not _is_sorted(table):
        table = table.sort(USER_ID, MILLISECONDS, maintain_order=True)
    table, dropped = clean(table, cleaning or CleaningConfig())
    rejects += dropped
    counts = Counter[str]()
    for rows in rejects:
        counts.update({reason: n for reason, n in rows[REASON].value_counts().iter_rows()})
    if table.is_empty():
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in counts.most_common()) or "no rows at all"
        raise DataError(f"{_named(files)} holds nothing usable: {reasons}")
    notes = ["some times name no zone; UTC was assumed"] if no_zone else []
    report = ReadReport([str(path) for path in files], rows_read, len(table), dict(counts), taken_for, notes)
    table = table.drop(LINE, FILE, MILLISECONDS)
    return Interactions(_with_numbers(table), report, _rejected(rejects))


def read_items(source: Source, *, columns: Mapping[str, str] | None = None) -> Entities:
    """Read what the items say.

    Args:
        source: A file, a glob, a folder, or several of them.
        columns: Our name -> the file's name, for columns that are not recognised.

    Raises:
        DataError: A file cannot be used, or holds no item.
    """
    entities = _read_entities(source, ITEM_ID, (ITEM_ID, TITLE, IMAGE), columns or {})
    words = [name for name, dtype in entities.table.schema.items() if dtype == pl.String and name not in (ITEM_ID, IMAGE)]
    silent = entities.table.select(pl.all_horizontal(pl.col(words).is_null()).sum()).item() if words else 0
    if silent:
        entities.report.notes.append(f"{silent:,} items have no text; they are known by their ids alone")
    return entities


def read_users(source: Source, *, columns: Mapping[str, str] | None = None) -> Entities:
    """Read what is known of the users; arguments and errors as for `read_items`."""
    return _read_entities(source, USER_ID, (USER_ID,), columns or {})


def _read_log(
    path: Path, columns: Mapping[str, str], taken_for: dict[str, str]
) -> tuple[pl.DataFrame, pl.DataFrame, int, bool]:
    """Read one file of interactions.

    Returns:
        Usable rows, rows left out with their reason, rows read, and whether a time named no zone.
    """
    lazy, names = _renamed(path, (USER_ID, ITEM_ID, TIMESTAMP, BEHAVIOR, WEIGHT), columns, (USER_ID, ITEM_ID, TIMESTAMP))
    taken_for.update(names)
    schema = lazy.collect_schema()
    milliseconds = numeric_milliseconds(TIMESTAMP, schema[TIMESTAMP])
    expressions = [pl.col(LINE), milliseconds.alias(MILLISECONDS)]
    # Text of a time is kept only where it is no number, so that a numeric column costs 8 bytes a row.
    expressions.append(pl.when(milliseconds.is_null()).then(pl.col(TIMESTAMP).cast(pl.String)).alias(_TEXT_TIME))
    for name, dtype in schema.items():
        if name == WEIGHT:
            expressions.append(pl.col(name).cast(pl.Float32, strict=False))
        elif name not in (LINE, TIMESTAMP):
            expressions.append(pl.col(name) if dtype.is_numeric() and name not in (USER_ID, ITEM_ID, BEHAVIOR) else _category(name))
    table = _collect(lazy.select(expressions), path)
    table = table.filter(~pl.all_horizontal(pl.exclude(LINE).is_null()))  # blank lines
    texts = table[_TEXT_TIME].drop_nulls()
    assumed_utc = False
    if len(texts):
        parsed, assumed_utc = parse_text_times(table[_TEXT_TIME])
        table = table.with_columns(pl.col(MILLISECONDS).fill_null(parsed))
        if table[MILLISECONDS].null_count() == len(table):
            raise DataError(
                f"{path} has no readable time: its first is {texts[0]!r} in the column"
                f" {next(c for c, ours in names.items() if ours == TIMESTAMP)!r}; wanted {ACCEPTED}"
            )
    return *_usable(_with_behavior(table)), len(table), assumed_utc


def _usable(table: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Part rows that can be used from those that cannot, which are told why."""
    newest = int(time.time() + SECONDS_PER_DAY) * 1000
    reasons = {
        "too many fields": pl.col(EXTRA).is_not_null() if EXTRA in table.columns else pl.lit(False),
        "missing user_id": pl.col(USER_ID).is_null(),
        "missing item_id": pl.col(ITEM_ID).is_null(),
        "missing timestamp": pl.col(MILLISECONDS).is_null() & pl.col(_TEXT_TIME).is_null(),
        "unreadable timestamp": pl.col(MILLISECONDS).is_null(),
        "impossible time": (pl.col(MILLISECONDS) <= 0) | (pl.col(MILLISECONDS) > newest),
    }
    reason = pl.coalesce(pl.when(bad).then(pl.lit(name)) for name, bad in reasons.items())
    marks = table.select(reason.cast(pl.Categorical).alias(REASON))[REASON]
    kept = table if marks.null_count() == len(marks) else table.filter(marks.is_null())
    kept = kept.drop(_TEXT_TIME, EXTRA, strict=False)
    kept = kept.with_columns((pl.col(MILLISECONDS) // 1000).alias(TIMESTAMP))
    bad = table.filter(marks.is_not_null()).with_columns(marks.drop_nulls().cast(pl.String).alias(REASON))
    return kept, bad


def _read_entities(source: Source, key: str, wanted: tuple[str, ...], columns: Mapping[str, str]) -> Entities:
    files = find_files(source)
    taken_for: dict[str, str] = {}
    parts = []
    for path in files:
        lazy, names = _renamed(path, wanted, columns, (key,))
        taken_for.update(names)
        part = _collect(lazy.with_columns(_text(key)), path)
        parts.append(part.filter(~pl.all_horizontal(pl.exclude(LINE).is_null())).with_columns(pl.lit(path.name).alias(FILE)))
    table = pl.concat(parts, how="diagonal_relaxed")
    reasons = {
        "too many fields": pl.col(EXTRA).is_not_null() if EXTRA in table.columns else pl.lit(False),
        f"missing {key}": pl.col(key).is_null(),
        f"{key} given before": ~pl.col(key).is_first_distinct(),
    }
    table = table.with_columns(pl.coalesce(pl.when(bad).then(pl.lit(why)) for why, bad in reasons.items()).alias(REASON))
    rejects = table.filter(pl.col(REASON).is_not_null())
    kept = table.filter(pl.col(REASON).is_null()).drop(LINE, FILE, REASON, EXTRA, strict=False)
    counts = dict(rejects[REASON].value_counts().iter_rows())
    if kept.is_empty():
        raise DataError(f"{_named(files)} holds no row with a {key}; wanted a catalogue with one row for each")
    kept = kept.select(key, *(_entity_column(kept[name]) for name in kept.columns if name != key))
    notes = [f"{n:,} rows were left out: {why}" for why, n in counts.items()]
    report = ReadReport([str(path) for path in files], len(table), len(kept), counts, taken_for, notes)
    return Entities(kept, report, _rejected([rejects]))


def _entity_column(column: pl.Series) -> pl.Series:
    """Turn a column into numbers where all of it is numbers, into text otherwise; empty text is null."""
    if column.dtype.is_numeric():
        return column.cast(pl.Float64)
    text = column.cast(pl.String).str.strip_chars().replace("", None)
    return text.cast(pl.Float64) if _are_numbers(text.drop_nulls()) else text


def _with_numbers(table: pl.DataFrame) -> pl.DataFrame:
    """Turn context columns that hold nothing but numbers into numbers."""
    for name in table.columns:
        if name in (USER_ID, ITEM_ID, BEHAVIOR) or table[name].dtype != pl.Categorical:
            continue
        words = table[name].unique().drop_nulls().cast(pl.String)
        if _are_numbers(words):
            table = table.with_columns(pl.col(name).cast(pl.String).cast(pl.Float64).cast(pl.Float32))
    return table


def _are_numbers(words: pl.Series) -> bool:
    """Say whether every word is a number; "007" is not, nor is nothing at all."""
    if words.is_empty() or words.str.contains(r"^-?0\d").any():
        return False
    return words.cast(pl.Float64, strict=False).null_count() == 0


def _with_behavior(table: pl.DataFrame) -> pl.DataFrame:
    default = pl.lit(DEFAULT_BEHAVIOR).cast(pl.Categorical)
    return table.with_columns((pl.col(BEHAVIOR).fill_null(default) if BEHAVIOR in table.columns else default).alias(BEHAVIOR))


def _renamed(
    path: Path, wanted: tuple[str, ...], columns: Mapping[str, str], needed: tuple[str, ...]
) -> tuple[pl.LazyFrame, dict[str, str]]:
    """Open a file with its columns under our names."""
    lazy = open_table(path)
    header = [name for name in lazy.collect_schema().names() if name not in (LINE, EXTRA)]
    names = recognise(header, wanted, columns)
    require(names, needed, str(path))
    return lazy.rename(names), names


def _header(source: Source) -> list[str]:
    return [name for path in find_files(source) for name in open_table(path).collect_schema().names()]


def _text(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.String).str.strip_chars().replace("", None).alias(name)


def _category(name: str) -> pl.Expr:
    return _text(name).cast(pl.Categorical)


def _collect(lazy: pl.LazyFrame, path: Path) -> pl.DataFrame:
    try:
        return lazy.collect(engine="streaming")
    except pl.exceptions.PolarsError as error:
        wrong_encoding = not_utf8(path)
        if wrong_encoding:
            raise wrong_encoding from None
        if "not properly escaped" in str(error):
            raise DataError(f"{path} has a quote that is opened and never closed; double it or remove it") from None
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None


def _is_sorted(table: pl.DataFrame) -> bool:
    """Say whether rows are in order of user and time already, as many exports are."""
    user = pl.col(USER_ID).to_physical()
    return bool(
        table.select(
            (
                (user > user.shift(1))
                | ((user == user.shift(1)) & (pl.col(MILLISECONDS) >= pl.col(MILLISECONDS).shift(1)))
            ).all()
        ).item()
    )


def _rejected(parts: list[pl.DataFrame]) -> pl.DataFrame:
    """Put rejected rows in one table: file, line, reason, and the ids and time they had."""
    tables = []
    for part in parts:
        if part.is_empty():
            continue
        shown = part.select(
            pl.col(FILE).cast(pl.String).alias("file"),
            pl.col(LINE).cast(pl.Int64).alias("line"),
            pl.col(REASON).cast(pl.String),
            *(pl.col(name).cast(pl.String) for name in (USER_ID, ITEM_ID) if name in part.columns),
            *(pl.col(name).cast(pl.String).alias("time") for name in (_TEXT_TIME, TIMESTAMP) if name in part.columns),
        )
        tables.append(shown)
    return pl.concat(tables, how="diagonal") if tables else pl.DataFrame(schema=_REJECT_COLUMNS)


def _named(files: list[Path]) -> str:
    return str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
