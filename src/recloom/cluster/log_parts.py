"""Files of a log -> parts sorted by user -> datasets of some users each: what a worker does while a log is prepared.

Every function reads files that all machines share and leaves whole files there, or none: one that is repeated after its
worker was lost, or by the same command given again, finds what is done and does the rest.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from recloom.cluster.files import FileThere, as_local
from recloom.dataset import Dataset
from recloom.errors import DataError
from recloom.events import CleaningConfig, Interactions, Pseudonyms, ReadReport
from recloom.events.cleaning import clean
from recloom.events.columns import FILE, ITEM_ID, LINE, REASON, USER_ID
from recloom.events.interactions import (
    RowCounts,
    count_rows,
    finished,
    in_order,
    open_log,
    read_log,
    rejects_of,
    usable,
    verdicts_of,
)
from recloom.events.sources import open_table
from recloom.events.tables import RecognisedFile, count_by_reason, header_of, text
from recloom.events.timestamps import MILLISECONDS
from recloom.files import replacing


@dataclass(frozen=True)
class Survey:
    """What a look at one file of a log says."""

    header: list[str]
    names: dict[str, str] = field(default_factory=dict)
    """The file's name of each column -> our name."""
    verdicts: dict[str, bool | None] = field(default_factory=dict)
    """Of each context column, as `number_columns` takes them."""
    rows: int = 0
    users: list[str] = field(default_factory=list)
    """User ids of rows at equal distances."""
    error: DataError | None = None
    """Why the file cannot be used."""


@dataclass(frozen=True)
class Plan:
    """How a log is taken apart, the same for all of its files."""

    columns: dict[str, str]
    numbers: frozenset[str]
    """Context columns that hold nothing but numbers."""
    bounds: list[str]
    """The first user of each part of the users but the first; ascending."""
    pseudonyms: Pseudonyms | None = None

    @property
    def digest(self) -> str:
        """What decides the content of the parts of a file, beside the file."""
        key = self.pseudonyms.key_id if self.pseudonyms else ""
        return _digest([self.columns, sorted(self.numbers), self.bounds, key])


@dataclass(frozen=True)
class Sorted:
    """What became of one file."""

    folder: str
    """Where its usable rows, its rejects and this are."""
    counts: RowCounts
    dropped: dict[str, int]


@dataclass(frozen=True)
class Cleaned:
    """What became of some users' rows."""

    folder: str
    """A dataset, or rows that are still to be one; with `rejects.csv`."""
    rows: int
    dropped: dict[str, int]


def survey(file: FileThere, columns: Mapping[str, str], sample: int) -> Survey:
    """Look at the columns of a file and at some of its users; what is wrong with it is returned, not raised."""
    header: list[str] = []
    try:
        with _local(file) as path:
            header = header_of(open_table(path))
            opened = _open(path, columns)
            rows = int(opened.collect(opened.rows.select(pl.len().alias("n")))["n"][0])
            user = text(USER_ID).alias(USER_ID)
            users = opened.collect(opened.rows.select(user).gather_every(max(1, rows // sample)))[USER_ID]
            verdicts = verdicts_of(opened)
    except DataError as error:
        return Survey(header, error=error)
    return Survey(header, opened.names, verdicts, rows, users.drop_nulls().to_list())


@contextmanager
def _local(file: FileThere) -> Iterator[Path]:
    """Give a file as a local one, that goes by its own name in errors."""
    with as_local(file.place) as path:
        try:
            yield path
        except DataError as error:
            raise DataError(str(error).replace(str(path), file.name)) from None


def _open(path: Path, columns: Mapping[str, str]) -> RecognisedFile:
    header = header_of(open_table(path))
    return open_log([path], {ours: theirs for ours, theirs in columns.items() if theirs in header})[0]


def sort_file(file: FileThere, plan: Plan, work: Path) -> Sorted | DataError:
    """Read and validate a file as on one machine, and write its usable rows as one row group for each part of users."""
    out = work / "sorted" / _digest([asdict(file), plan.digest])
    if done := _record(out):
        return Sorted(str(out), RowCounts(**done["counts"]), done["dropped"])
    try:
        with _local(file) as path:
            table = read_log(_open(path, plan.columns), set(plan.numbers))
    except DataError as error:
        return error
    table = table.with_columns(pl.lit(file.name).cast(pl.Categorical).alias(FILE))
    counts = count_rows(table)
    table, unusable = usable(table)
    log = Interactions.of(table)
    rejects = rejects_of([unusable])
    if plan.pseudonyms:
        log = plan.pseudonyms.in_log(Interactions(table, log.report, rejects))
        table, rejects = log.table, log.rejects
    dropped = count_by_reason(rejects)
    with replacing(out) as beside:
        beside.mkdir()
        _write_parts(table, plan.bounds, beside / "rows.parquet")
        rejects.write_csv(beside / "rejects.csv", include_header=False)
        _write_record(beside, counts=asdict(counts), dropped=dropped)
    return Sorted(str(out), counts, dropped)


def _write_parts(table: pl.DataFrame, bounds: Sequence[str], path: Path) -> None:
    """Write the rows of each part of the users as one row group, in the order of the file."""
    part = pl.Series(bounds, dtype=pl.String).search_sorted(table[USER_ID].cast(pl.String), side="right")
    part_N = part.to_numpy()
    order = np.argsort(part_N, kind="stable")
    ends = np.cumsum(np.bincount(part_N, minlength=len(bounds) + 1))
    with pq.ParquetWriter(path, _arrow(table[:0]).schema, compression="zstd") as writer:
        for begin, end in zip([0, *ends[:-1]], ends, strict=True):
            writer.write_table(_arrow(table[order[begin:end]]), row_group_size=max(1, int(end - begin)))


def _arrow(table: pl.DataFrame) -> pa.Table:
    return table.with_columns(pl.col(pl.Categorical).cast(pl.String)).to_arrow()


def clean_part(part: int, sources: Sequence[str], key: str, cleaning: CleaningConfig, work: Path) -> Cleaned:
    """Bring the rows of some users together, in order, and drop what does not depend on other users.

    Where nothing else is to be dropped a dataset comes out, else rows.
    """
    out = work / "parts" / f"{part:05}-{key}"
    if done := _record(out):
        return Cleaned(str(out), done["rows"], done["dropped"])
    tables = [_read_group(Path(source) / "rows.parquet", part) for source in sources]
    table = in_order(pl.concat(tables, how="diagonal"))
    own = CleaningConfig(**{**asdict(cleaning), "min_interactions": 0})
    table, dropped = clean(table, own)
    if cleaning.min_interactions <= 1:
        return _write_dataset(table, dropped, out)
    with _finished(out, dropped, len(table)) as beside:
        table.write_parquet(beside / "rows.parquet")
        _count_items(table, beside)
    return Cleaned(str(out), len(table), count_by_reason(rejects_of(dropped)))


def _read_group(path: Path, part: int) -> pl.DataFrame:
    table = pl.DataFrame(pq.ParquetFile(path).read_row_group(part))
    return table.with_columns(pl.col(name).cast(pl.Categorical) for name, t in table.schema.items() if t == pl.String)


def core_round(part: int, rows: Sequence[str], before: Sequence[str], few: str, minimum: int, number: int) -> Cleaned:
    """Drop, once, users with too few interactions and the items that are named.

    The rows stay where they are; which of them are left is what a round writes.

    Args:
        part: Which users.
        rows: The folders of the rows of all parts.
        before: The folders of the round before, of all parts; those of the rows in the first one.
        few: A Parquet file of the items that have too few interactions of everybody.
        minimum: What is too few for a user.
        number: Which round it is.
    """
    out = Path(f"{rows[part]}.round{number}")
    if done := _record(out):
        return Cleaned(str(out), done["rows"], done["dropped"])
    left_N = _left(Path(before[part]))
    table = pl.read_parquet(Path(rows[part]) / "rows.parquet", columns=[FILE, LINE, USER_ID, ITEM_ID, MILLISECONDS])
    if left_N is not None:
        table = table[left_N]
    is_few = pl.col(ITEM_ID).cast(pl.String).is_in(pl.read_parquet(few)[ITEM_ID].implode())
    bad = table.select(bad=(pl.len().over(USER_ID) < minimum) | is_few)["bad"]
    reason = pl.lit("below min-interactions").alias(REASON)
    dropped = [table.filter(bad).with_columns(reason)] if bad.any() else []
    with _finished(out, dropped, len(table) - int(bad.sum())) as beside:
        still_N = np.flatnonzero(~bad.to_numpy())
        np.save(beside / "left.npy", still_N if left_N is None else left_N[still_N])
        _count_items(table.filter(~bad), beside)
    return Cleaned(str(out), len(table) - int(bad.sum()), count_by_reason(rejects_of(dropped)))


def _left(folder: Path) -> np.ndarray | None:
    """Return which rows a round left, None where there was none."""
    return np.load(folder / "left.npy") if (folder / "left.npy").exists() else None


def finish_part(job: tuple[str, str]) -> Cleaned:
    """Make the dataset of rows of which nothing more is to be dropped, given the folders of the rows and the round."""
    rows, last = map(Path, job)
    out = Path(f"{rows}.whole")
    if done := _record(out):
        return Cleaned(str(out), done["rows"], done["dropped"])
    return _write_dataset(pl.read_parquet(rows / "rows.parquet")[np.load(last / "left.npy")], [], out)


def _write_dataset(table: pl.DataFrame, dropped: list[pl.DataFrame], out: Path) -> Cleaned:
    rejects = rejects_of(dropped)
    with _finished(out, dropped, len(table)) as beside:
        if len(table):
            report = ReadReport([], len(table), len(table), {}, {})
            Dataset.from_tables(Interactions(finished(table), report, rejects), out=beside)
    return Cleaned(str(out), len(table), count_by_reason(rejects))


@contextmanager
def _finished(out: Path, dropped: list[pl.DataFrame], num_rows: int) -> Iterator[Path]:
    """Give a folder to write to, which takes its place once it is written, with what was dropped."""
    rejects = rejects_of(dropped)
    with replacing(out) as beside:
        beside.mkdir()
        yield beside
        rejects.write_csv(beside / "rejects.csv", include_header=False)
        _write_record(beside, rows=num_rows, dropped=count_by_reason(rejects))


def _count_items(table: pl.DataFrame, folder: Path) -> None:
    table[ITEM_ID].cast(pl.String).value_counts(name="n").write_parquet(folder / "items.parquet")


def _record(folder: Path) -> dict[str, Any] | None:
    """Return what was written of a folder that is whole, else None."""
    path = folder / "done.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _write_record(folder: Path, **facts: Any) -> None:
    (folder / "done.json").write_text(json.dumps(facts), encoding="utf-8")


def _digest(what: Any) -> str:
    return hashlib.blake2b(json.dumps(what, sort_keys=True).encode(), digest_size=12).hexdigest()
