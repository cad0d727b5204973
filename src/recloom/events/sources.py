"""Paths, globs and folders -> lazy tables, whatever the format of the files.

Every value that can be read as text is kept as the file spells it, so that ids keep their leading zeros. A column
`LINE` holds the line of each row in its file (the header being line 1); where a quoted field holds line breaks, later
numbers are too low by as many.
"""

import glob
import gzip
import io
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import polars as pl

from recloom.errors import DataError
from recloom.events.dialects import headerless_columns

LINE = "__line"
EXTRA = "__extra"
"""Holds what a row has beyond the header's last column."""
SUFFIXES = (".csv", ".tsv", ".txt", ".dat", ".inter", ".item", ".user", ".json", ".jsonl", ".ndjson", ".parquet", ".h5", ".hdf5")
_SEPARATORS = ",\t;|"
_GZIP_MAGIC = b"\x1f\x8b"

Source = str | Path | Sequence[str | Path]


def find_files(source: Source) -> list[Path]:
    """Return the files that a path, a glob, a folder or several of them name, sorted by name.

    Raises:
        DataError: There is no such file, or nothing readable in the folder.
    """
    if not isinstance(source, str | Path):
        return [path for one in source for path in find_files(one)]
    path = Path(source).expanduser()
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.is_file() and _suffix(p) in SUFFIXES)
        if not found:
            raise DataError(f"the folder {path} holds no file that can be read; wanted one of {', '.join(SUFFIXES)}")
        return found
    if path.is_file():
        return [path]
    found = sorted(Path(match) for match in glob.glob(str(path)))
    if not found:
        raise DataError(f"there is no file {path}; give a file, a folder, or a glob in quotes")
    return [p for p in found if p.is_file()]


def open_table(path: Path) -> pl.LazyFrame:
    """Open a file by what is in it: CSV or TSV, JSON lines or a JSON array, Parquet, HDF5, MovieLens `::`; or gzip.

    Raises:
        DataError: The file is empty, binary, or not in UTF-8.
    """
    head = _read_head(path)
    if not head.strip():
        raise DataError(f"{path} is empty; wanted a header and rows")
    if head.startswith(b"PAR1"):
        return pl.scan_parquet(_content(path)).with_row_index(LINE, offset=1)
    if head.startswith(b"\x89HDF"):
        return _read_hdf5(path).lazy().with_row_index(LINE, offset=1)
    if b"\0" in head:
        raise DataError(f"{path} is a binary file; wanted CSV, TSV, JSON lines, Parquet or HDF5")
    if b"::" in head.split(b"\n", 1)[0]:
        return _read_movielens(path)
    if head.lstrip()[:1] in (b"{", b"["):
        return _open_json(path, is_array=head.lstrip()[:1] == b"[")
    return _open_delimited(path, head)


def not_utf8(path: Path) -> DataError | None:
    """Say where a file stops being UTF-8, and what it probably is; None for a file that is UTF-8."""
    try:
        raw = gzip.decompress(path.read_bytes()) if _is_gzip(path) else path.read_bytes()
        raw.decode()
    except UnicodeDecodeError as error:
        try:
            raw.decode("gb18030")
            guess, name = "it may be GB18030 (GBK)", "GB18030"
        except UnicodeDecodeError:
            guess, name = "it may be Latin-1", "LATIN1"
        return DataError(
            f"{path} is not UTF-8 at byte {error.start:,}; {guess}, then convert it with:"
            f" iconv -f {name} -t UTF-8 {path.name} > utf8-{path.name}"
        )
    return None


def _open_delimited(path: Path, head: bytes) -> pl.LazyFrame:
    lines = head.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    try:
        first = lines[0].decode().rstrip("\r")
    except UnicodeDecodeError:
        raise not_utf8(path) or DataError(f"{path} has an unreadable header") from None
    separator = "\t" if _suffix(path) == ".tsv" else max(_SEPARATORS, key=first.count)
    header = pl.read_csv(io.StringIO(first + "\n"), separator=separator, has_header=False, infer_schema=False).row(0)
    names = [name or f"column_{position}" for position, name in enumerate(header, start=1)]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path} has two columns named {twice!r}; rename one")
    schema = dict.fromkeys([*names, EXTRA], pl.String)
    # Reading the header as a row of its own and giving the schema lets short rows end in nulls and long ones be
    # noticed, where polars would otherwise refuse the file or cut the row.
    return pl.scan_csv(
        path,
        separator=separator,
        has_header=False,
        skip_lines=1,
        schema=schema,
        missing_columns="insert",
        truncate_ragged_lines=True,
        row_index_name=LINE,
        row_index_offset=2,
    )


def _open_json(path: Path, is_array: bool) -> pl.LazyFrame:
    try:
        if is_array:
            table = pl.read_json(_content(path), infer_schema_length=None).lazy()
        else:
            table = pl.scan_ndjson(path, infer_schema_length=None)
        schema = table.collect_schema()
    except pl.exceptions.ComputeError as error:
        raise DataError(f"{path} looks like JSON but is not: {str(error).splitlines()[0]}") from None
    return table.with_columns(_as_text(name, dtype) for name, dtype in schema.items()).with_row_index(LINE, offset=1)


def _as_text(name: str, dtype: pl.DataType) -> pl.Expr:
    """Spell a nested value as text: a list's parts joined by bars, an object as JSON."""
    if isinstance(dtype, pl.List):
        return pl.col(name).cast(pl.List(pl.String), strict=False).list.join("|")
    if isinstance(dtype, pl.Struct):
        return pl.col(name).struct.json_encode()
    return pl.col(name)


def _read_movielens(path: Path) -> pl.LazyFrame:
    raw = gzip.decompress(path.read_bytes()) if _is_gzip(path) else path.read_bytes()
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")  # as GroupLens ships these files
    names = headerless_columns(text.split("\n", 1)[0].count("::") + 1, path.name)
    return pl.read_csv(
        io.BytesIO(text.replace("::", "\x1f").encode()),
        separator="\x1f",
        has_header=False,
        new_columns=names,
        quote_char=None,
        infer_schema=False,
        row_index_name=LINE,
        row_index_offset=1,
    ).lazy()


def _read_hdf5(path: Path) -> pl.DataFrame:
    """Read one array a column, from the root or from the single group, or one compound array."""
    with h5py.File(_content(path), "r") as file:
        node: h5py.Group | h5py.Dataset = file
        while isinstance(node, h5py.Group) and len(node) == 1:
            node = next(iter(node.values()))
        if isinstance(node, h5py.Dataset):
            if node.dtype.names is None:
                raise DataError(f"{path} holds a single array; wanted one array for each column, or a compound array")
            columns = {name: node[name] for name in node.dtype.names}
        else:
            columns = {name: stored[:] for name, stored in node.items() if isinstance(stored, h5py.Dataset)}
    if len({len(values) for values in columns.values()}) != 1:
        raise DataError(f"the arrays of {path} have different lengths; wanted one value a row in each")
    return pl.DataFrame({name: _decoded(values) for name, values in columns.items()})


def _decoded(values: np.ndarray) -> pl.Series:
    if values.dtype.kind in "SO":
        return pl.Series([value.decode() if isinstance(value, bytes) else str(value) for value in values])
    return pl.Series(values)


def _content(path: Path) -> Path | io.BytesIO:
    return io.BytesIO(gzip.decompress(path.read_bytes())) if _is_gzip(path) else path


def _read_head(path: Path) -> bytes:
    try:
        if _is_gzip(path):
            with gzip.open(path) as file:
                return file.read(65_536)
        with path.open("rb") as plain:
            return plain.read(65_536)
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == _GZIP_MAGIC


def _suffix(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix.lower()
