"""Catalogues and tables of users -> one row for each id, text and number columns."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from recloom.errors import DataError
from recloom.events.columns import EXTRA, FILE, IMAGE, ITEM_ID, LINE, REASON, TITLE, USER_ID, VECTOR_PREFIX
from recloom.events.sources import Source
from recloom.events.tables import (
    Entities,
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


def read_items(source: Source, *, columns: Mapping[str, str] | None = None) -> Entities:
    """Read what the items say. An id that comes again is left out; the first row stays.

    Args:
        source: A file, a glob, a folder, or several of them.
        columns: Our name -> the file's name, for columns that are not recognised.

    Raises:
        DataError: A file cannot be used, or holds no item.
    """
    items = _read_entities(source, ITEM_ID, (ITEM_ID, TITLE, IMAGE), columns or {})
    words = [
        name
        for name, dtype in items.table.schema.items()
        if dtype == pl.String and name not in (ITEM_ID, IMAGE) and not name.startswith(VECTOR_PREFIX)
    ]
    silent = items.table.select(pl.all_horizontal(pl.col(words).is_null()).sum()).item() if words else len(items.table)
    if IMAGE in items.table.columns and (missing := int(_names_of_nothing(items.table[IMAGE]).sum())):
        items.report.notes.append(f"{missing:,} pictures that the catalogue names are not there")
    if silent:
        items.report.notes.append(f"{silent:,} items have no text; they are known by their ids alone")
    return items


def read_users(source: Source, *, columns: Mapping[str, str] | None = None) -> Entities:
    """Read what is known of the users; arguments and errors as for `read_items`."""
    return _read_entities(source, USER_ID, (USER_ID,), columns or {})


def _read_entities(source: Source, key: str, wanted: Sequence[str], columns: Mapping[str, str]) -> Entities:
    files = open_files(source, wanted, (key,), columns)
    table = pl.concat([_with_pictures(_read_texts(file), file.path.parent) for file in files], how="diagonal")
    table = table.with_columns(reason_of(_reasons(key, has_extra=EXTRA in table.columns)))
    rejects = rejected([table.filter(pl.col(REASON).is_not_null())], (key,))
    kept = table.filter(pl.col(REASON).is_null()).drop(LINE, FILE, REASON, EXTRA, strict=False)
    if kept.is_empty():
        raise DataError(f"{named(files)} holds no row with {key} filled in; wanted one row for each")
    kept = kept.select(key, *(_as_numbers(kept[name]) for name in kept.columns if name != key))
    counts = count_by_reason(rejects)
    notes = [f"{n:,} rows were left out: {reason}" for reason, n in counts.items()]
    taken_for = {theirs: ours for file in files for theirs, ours in file.names.items()}
    report = ReadReport([str(file.path) for file in files], len(table), len(kept), counts, taken_for, notes)
    return Entities(kept, report, rejects)


def _read_texts(file: RecognisedFile) -> pl.DataFrame:
    names = [name for name in file.rows.collect_schema() if name != LINE]
    return file.collect(file.rows.select(LINE, *(text(name) for name in names)))


def _with_pictures(table: pl.DataFrame, folder: Path) -> pl.DataFrame:
    """Name pictures that are there by their whole path, as file: addresses; names of nothing that is there stay."""
    if IMAGE not in table.columns:
        return table
    names = table[IMAGE].to_list()
    return table.with_columns(pl.Series(IMAGE, [local_picture(name, folder) for name in names], dtype=pl.String))


def _names_of_nothing(pictures: pl.Series) -> pl.Series:
    """Return which names of pictures are no addresses, as those become that are there."""
    return pictures.is_not_null() & ~pictures.cast(pl.String).str.contains("^[^/]*:|^//")


def local_picture(name: str | None, folder: Path) -> str | None:
    """Return the file: address of a picture, where a file of that name is there; else the name.

    Args:
        name: A path, absolute or relative to the folder.
        folder: That of the catalogue.
    """
    if not name or ":" in name.split("/")[0]:
        return name  # nothing, or an address already
    try:
        path = (folder / name).resolve()
        return path.as_uri() if path.is_file() else name
    except (OSError, ValueError):  # too long to be a path, or with a zero in it
        return name


def _reasons(key: str, has_extra: bool) -> dict[str, pl.Expr]:
    return {
        "too many fields": pl.col(EXTRA).is_not_null() if has_extra else pl.lit(False),
        f"missing {key}": pl.col(key).is_null(),
        f"{key} given before": ~pl.col(key).is_first_distinct(),
    }


def _as_numbers(column: pl.Series) -> pl.Series:
    """Turn a column of texts into numbers where all of them are."""
    texts = column.drop_nulls()
    are_numbers = len(texts) > 0 and texts.to_frame().select(is_number(pl.col(column.name)).all()).item()
    return column.cast(pl.Float64) if are_numbers else column
