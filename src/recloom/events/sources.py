"""Paths, globs and folders -> lazy tables, whatever the format of the files.

Every value that can be read as text is kept as the file spells it, so that ids keep their leading zeros. A column
`LINE` holds the line of each row in its file, the header being line 1; in Parquet, HDF5 and JSON arrays it is the
row, the first being 1. Where a quoted field holds line breaks, or JSON lines are blank, later numbers are too low
by as many.
"""

import codecs
import glob
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import polars as pl

from recloom.errors import DataError
from recloom.events.columns import EXTRA, LINE
from recloom.events.dialects import headerless_columns

SUFFIXES = (
    *(".csv", ".tsv", ".txt", ".dat", ".inter", ".item", ".user"),
    *(".json", ".jsonl", ".ndjson", ".parquet", ".h5", ".hdf5"),
)
_SEPARATORS = ",\t;|"
_GZIP_MAGIC = b"\x1f\x8b"
_HEAD_BYTES = 65_536
_TWO_HIGH_BYTES = rb"[\x80-\xff]{2}"
_ONE_HIGH_BYTE = rb"(?<![\x80-\xff])[\x80-\xff](?![\x80-\xff])"
# The parser cuts a row at the last column it was told of: fields are looked for this far behind the header's last.
_EXTRAS = [f"{EXTRA}_{position}" for position in range(4)]

Source = str | Path | Sequence[str | Path]


def find_files(source: Source) -> list[Path]:
    """Return the files that a path, a glob, a folder or several of them name, sorted by name within each.

    Raises:
        DataError: There is no such file, or nothing readable in the folder.
    """
    if not isinstance(source, str | Path):
        return list(dict.fromkeys(path for one in source for path in find_files(one)))
    path = Path(source).expanduser()
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.is_file() and _suffix(p) in SUFFIXES)
        if not found:
            raise DataError(f"the folder {path} holds no file that can be read; wanted one of {', '.join(SUFFIXES)}")
        return found
    if path.is_file():
        return [path]
    found = sorted(match for match in map(Path, glob.glob(str(path))) if match.is_file())
    if not found:
        raise DataError(f"there is no file {path}; give a file, a folder, or a glob in quotes")
    return found


def open_table(path: Path) -> pl.LazyFrame:
    """Open a file by what is in it: CSV or TSV, JSON lines or a JSON array, Parquet, HDF5, MovieLens `::`; or gzip.

    Text is text in CSV and TSV; elsewhere lists become text joined by bars, objects JSON, and NaN null.

    Raises:
        DataError: The file is empty, binary, damaged, or not in UTF-8.
    """
    with explaining(path):
        head = _read_head(path)
        if not head.strip():
            raise DataError(f"{path} is empty; wanted a header and rows")
        if head.startswith(b"PAR1"):
            return _numbered(pl.scan_parquet(_content(path) if _is_gzip(path) else path))
        if head.startswith(b"\x89HDF"):
            return _numbered(_read_hdf5(path).lazy())
        if wide := _wide_encoding(head):
            raise DataError(f"{path} is {wide}; wanted UTF-8, convert it with: {_iconv(wide, path)}")
        if b"\0" in head:
            raise DataError(f"{path} is a binary file; wanted CSV, TSV, JSON lines, Parquet or HDF5")
        has_mark, head = head.startswith(codecs.BOM_UTF8), head.removeprefix(codecs.BOM_UTF8)
        if head.lstrip().startswith(b"["):
            return _numbered(pl.read_json(_content(path), infer_schema_length=None).lazy())
        if head.lstrip().startswith(b"{"):
            return _numbered(pl.scan_ndjson(_content(path) if has_mark else path, infer_schema_length=None))
        first = head.split(b"\n", 1)[0]
        return _read_movielens(path) if b"::" in first else _open_delimited(path, first.decode().rstrip("\r"))


@contextmanager
def explaining(path: Path) -> Iterator[None]:
    """Turn what readers raise about a file into one sentence on what is wrong with it.

    Raises:
        DataError: Whatever it was.
    """
    try:
        yield
    except DataError:
        raise
    except (pl.exceptions.PolarsError, UnicodeDecodeError, OSError, EOFError, zlib.error, RuntimeError) as error:
        raise DataError(_what_is_wrong(path, str(error).strip() or type(error).__name__)) from None


def _what_is_wrong(path: Path, message: str) -> str:
    try:
        raw = _content(path).getvalue()
    except (OSError, EOFError, zlib.error) as error:
        return f"{path} is damaged or cannot be read ({error}); fetch or export it again"
    if raw.startswith((b"PAR1", b"\x89HDF")):
        return f"{path} is damaged or of a kind not known here ({message.splitlines()[0]}); export it again"
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return _wrong_encoding(path, raw, error.start)
    if raw.lstrip().startswith(b"{"):
        return _wrong_json_line(path, raw) or f"{path} cannot be read: {message.splitlines()[0]}"
    if "as dtype `str`" in message:
        near = message.split("`")[1].splitlines()[0][:60]
        return (
            f"{path} has a quote that is opened and not closed where the field ends, at {near}; double it or remove it"
        )
    return f"{path} cannot be read: {message.splitlines()[0]}"


def _wide_encoding(head: bytes) -> str | None:
    """Tell text of two or four bytes a letter by its mark, or by a first line that is one when it is read so."""
    # The mark of UTF-32 begins with that of UTF-16.
    marks = {"UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE), "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)}
    for name, known in marks.items():
        if head.startswith(known):
            return name
    if b"\0" not in head:
        return None
    for name in ("UTF-16LE", "UTF-16BE"):
        first, line_end, _ = head.decode(name, errors="replace").partition("\n")
        if line_end and set(_SEPARATORS) & set(first) and all(c.isprintable() or c in "\t\r" for c in first):
            return name
    return None


def _wrong_encoding(path: Path, raw: bytes, first_bad_byte: int) -> str:
    line = raw.count(b"\n", 0, first_bad_byte) + 1
    where = f"{path} is not UTF-8 in line {line:,}, at byte {first_bad_byte:,}"
    text = raw.decode("utf-8", errors="replace")
    damaged = text.count("\ufffd")
    # Two bytes of another encoding are now and then a letter of UTF-8, but mostly not.
    if sum(not letter.isascii() for letter in text) - damaged >= damaged:
        return f"{where}, and what comes before is; mend or remove that line"
    # A Chinese character of GB18030 is two bytes of which the second is mostly above 127 as well. An accented letter
    # of Latin-1 stands among plain ones, with which it often makes a valid character of GB18030.
    pairs, singles = (len(re.findall(pattern, raw)) for pattern in (_TWO_HIGH_BYTES, _ONE_HIGH_BYTE))
    looks_chinese = pairs > singles and _can_be_read_as("gb18030", raw)
    name, said = ("GB18030", "GB18030 (GBK)") if looks_chinese else ("WINDOWS-1252", "Latin-1 (Windows-1252)")
    return f"{where}; it may be {said}, then convert it with: {_iconv(name, path)}"


def _can_be_read_as(encoding: str, raw: bytes) -> bool:
    try:
        raw.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _wrong_json_line(path: Path, raw: bytes) -> str | None:
    for number, line in enumerate(raw.split(b"\n"), start=1):
        try:
            if line.strip() and not isinstance(json.loads(line), dict):
                return f"line {number} of {path} is not a JSON object; wanted one object a line"
        except json.JSONDecodeError as error:
            return f"line {number} of {path} is not JSON ({error}); wanted one object a line"
    return None


def _iconv(encoding: str, path: Path) -> str:
    if _is_gzip(path):
        return f"gunzip -c {path.name} | iconv -f {encoding} -t UTF-8 | gzip > utf8-{path.name}"
    return f"iconv -f {encoding} -t UTF-8 {path.name} > utf8-{path.name}"


def _open_delimited(path: Path, first: str) -> pl.LazyFrame:
    separator = "\t" if _suffix(path) == ".tsv" else max(_SEPARATORS, key=first.count)
    header = pl.read_csv(io.StringIO(first + "\n"), separator=separator, has_header=False, infer_schema=False).row(0)
    names = [name or f"column_{position}" for position, name in enumerate(header, start=1)]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path} has two columns named {twice!r}; rename one")
    # Leaving the header out and giving the schema lets short rows end in nulls and long ones be noticed, where
    # polars would otherwise refuse the file or cut the row.
    rows = pl.scan_csv(
        path,
        separator=separator,
        has_header=False,
        skip_lines=1,
        schema=dict.fromkeys([*names, *_EXTRAS], pl.String),
        missing_columns="insert",
        truncate_ragged_lines=True,
        row_index_name=LINE,
        row_index_offset=2,
    )
    return rows.with_columns(pl.coalesce(_EXTRAS).alias(EXTRA)).drop(_EXTRAS)


def _numbered(rows: pl.LazyFrame) -> pl.LazyFrame:
    schema = rows.collect_schema()
    return rows.with_columns(_simple(name, dtype) for name, dtype in schema.items()).with_row_index(LINE, offset=1)


def _simple(name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if isinstance(dtype, pl.List | pl.Array):
        return column.cast(pl.List(pl.String), strict=False).list.join("|", ignore_nulls=True)
    if isinstance(dtype, pl.Struct):
        return pl.when(column.is_not_null()).then(column.struct.json_encode())
    return column.fill_nan(None) if dtype.is_float() else column


def _read_movielens(path: Path) -> pl.LazyFrame:
    raw = _content(path).getvalue()
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")  # as GroupLens ships these files
    names = headerless_columns(text.split("\n", 1)[0].count("::") + 1, path.name)
    rows = pl.read_csv(
        io.BytesIO(text.replace("::", "\x1f").encode()),
        separator="\x1f",
        has_header=False,
        schema=dict.fromkeys([*names, EXTRA], pl.String),
        missing_columns="insert",
        truncate_ragged_lines=True,
        quote_char=None,
        row_index_name=LINE,
        row_index_offset=1,
    )
    return rows.lazy()


def _read_hdf5(path: Path) -> pl.DataFrame:
    """Read one array a column, from the root or from the single group, or one compound array."""
    with h5py.File(_content(path) if _is_gzip(path) else path, "r") as file:
        node: h5py.Group | h5py.Dataset = file
        while isinstance(node, h5py.Group) and len(node) == 1:
            node = next(iter(node.values()))
        if isinstance(node, h5py.Dataset):
            if node.dtype.names is None:
                raise DataError(f"{path} holds a single array; wanted one array for each column, or a compound array")
            columns = {name: node[name] for name in node.dtype.names}
        else:
            columns = {name: stored[:] for name, stored in node.items() if isinstance(stored, h5py.Dataset)}
    if len({values.shape for values in columns.values()}) != 1 or next(iter(columns.values())).ndim != 1:
        shapes = ", ".join(f"{name} {values.shape}" for name, values in columns.items()) or "none"
        raise DataError(f"{path} has arrays of different shapes ({shapes}); wanted one value a row in each")
    return pl.DataFrame({name: _decoded(values) for name, values in columns.items()})


def _decoded(values: np.ndarray) -> pl.Series:
    if values.dtype.kind in "SO":
        return pl.Series([value.decode() if isinstance(value, bytes) else str(value) for value in values])
    return pl.Series(values)


def _content(path: Path) -> io.BytesIO:
    raw = path.read_bytes()
    raw = gzip.decompress(raw) if raw.startswith(_GZIP_MAGIC) else raw
    return io.BytesIO(raw.removeprefix(codecs.BOM_UTF8))


def _read_head(path: Path) -> bytes:
    with gzip.open(path) if _is_gzip(path) else path.open("rb") as file:
        return bytes(file.read(_HEAD_BYTES))


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == _GZIP_MAGIC


def _suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix
