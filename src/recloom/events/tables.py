"""What reading gives back, and the steps that logs, catalogues and tables of users share."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import polars as pl

from recloom.events.columns import EXTRA, FILE, LINE, REASON
from recloom.events.dialects import check_mapping, recognise, require
from recloom.events.sources import Source, explaining, find_files, open_table


@dataclass(frozen=True)
class ReadReport:
    """What was found in the files, and what became of it."""

    files: list[str]
    rows_read: int
    """Rows that are not blank."""
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
    one, and every other column as context, Float32 where all of it is numbers and categories otherwise, null where
    empty. The rows of a user are together, ordered by time as precisely as the log gives it, then as in the files.

    `rejects` has a row for each one left out: file, line, reason, user_id, item_id, and the timestamp (as the
    file spells it where that is the reason, in UTC seconds where the row was cleaned away).
    """

    table: pl.DataFrame
    report: ReadReport
    rejects: pl.DataFrame

    @classmethod
    def of(cls, table: pl.DataFrame) -> Self:
        """Return a table that was validated before and comes from no file."""
        return cls(table, ReadReport([], len(table), len(table), {}, {}), pl.DataFrame())


@dataclass(frozen=True)
class Entities:
    """A validated table of items or of users: one row for each id, text and number columns, missing values null.

    `rejects` has the file, line, reason and id of each row left out.
    """

    table: pl.DataFrame
    report: ReadReport
    rejects: pl.DataFrame

    @classmethod
    def of(cls, table: pl.DataFrame) -> Self:
        """Return a table that was validated before and comes from no file."""
        return cls(table, ReadReport([], len(table), len(table), {}, {}), pl.DataFrame())


@dataclass(frozen=True)
class RecognisedFile:
    """A file that is open and not yet read: its columns go by our names."""

    path: Path
    rows: pl.LazyFrame
    names: dict[str, str]
    """The file's name of each column -> our name."""

    def collect(self, rows: pl.LazyFrame) -> pl.DataFrame:
        """Read what was made of this file's rows, in a stream, and note the file in each row."""
        with explaining(self.path):
            table = rows.collect(engine="streaming")
        return table.with_columns(pl.lit(str(self.path)).cast(pl.Categorical).alias(FILE))


def open_files(
    source: Source, wanted: Sequence[str], needed: Sequence[str], columns: Mapping[str, str]
) -> list[RecognisedFile]:
    """Open files and find out what their columns are.

    Args:
        source: A file, a glob, a folder, or several of them.
        wanted: The names to look for.
        needed: Those of them without which a file is of no use.
        columns: What the caller says: our name -> a file's name.

    Raises:
        DataError: A file cannot be opened or lacks a column, or a column of `columns` is in none.
    """
    opened = [(path, open_table(path)) for path in find_files(source)]
    headers = [header_of(rows) for _, rows in opened]
    check_mapping(columns, headers)
    files = []
    for (path, rows), header in zip(opened, headers, strict=True):
        names = recognise(header, wanted, columns)
        require(names, needed, str(path))
        # Rows without any value are the blank lines that spreadsheets and editors leave behind.
        named = rows.rename(names).filter(~pl.all_horizontal(pl.exclude(LINE).is_null()))
        files.append(RecognisedFile(path, named, names))
    return files


def header_of(rows: pl.LazyFrame) -> list[str]:
    """Return a file's own columns."""
    return [name for name in rows.collect_schema().names() if name not in (LINE, EXTRA)]


def text(name: str) -> pl.Expr:
    """Return a column as text without white space around it, null where nothing is left."""
    stripped = pl.col(name).cast(pl.String).str.strip_chars()
    return pl.when(stripped != "").then(stripped).alias(name)


def is_number(text: pl.Expr) -> pl.Expr:
    """Say of each text whether it is a number; ids such as "007" and those too long for a Float64 are not."""
    spelled_as_id = text.str.contains(r"^-?(0\d|\d{16})")
    return text.cast(pl.Float64, strict=False).is_finite().fill_null(False) & ~spelled_as_id


def reason_of(reasons: Mapping[str, pl.Expr]) -> pl.Expr:
    """Return the first reason that holds for a row, null where none does."""
    found = pl.coalesce(pl.when(holds).then(pl.lit(reason)) for reason, holds in reasons.items())
    return found.cast(pl.Enum(list(reasons))).alias(REASON)


def rejected(parts: Iterable[pl.DataFrame], columns: Sequence[str]) -> pl.DataFrame:
    """Put rows that were left out in one table: file, line, reason, and the given columns as text."""
    schema = pl.Schema(dict.fromkeys(["file", "line", "reason", *columns], pl.String) | {"line": pl.Int64})
    tables = [
        part.select(pl.col(FILE).alias("file"), pl.col(LINE).alias("line"), pl.col(REASON).alias("reason"), *columns)
        for part in parts
    ]
    return pl.concat([pl.DataFrame(schema=schema), *(table.cast(schema) for table in tables)])


def count_by_reason(rejects: pl.DataFrame) -> dict[str, int]:
    """Count rows by the reason they were left out for, the most frequent first."""
    return dict(rejects["reason"].value_counts(sort=True).iter_rows())


def named(files: Sequence[RecognisedFile]) -> str:
    """Name files in a message."""
    return str(files[0].path) if len(files) == 1 else f"{files[0].path} and {len(files) - 1} more"
