"""Times as logs write them -> milliseconds since 1970, UTC."""

import polars as pl

_MICROSECONDS_FROM, _MILLISECONDS_FROM = 1e14, 1e11
"""A number this large is not seconds: 1e11 seconds is the year 5138."""
_ZONED_FORMATS = ("%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f %#z")
_PLAIN_FORMATS = (
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M",
)
_DATE_FORMATS = ("%Y-%m-%d", "%Y/%m/%d", "%Y%m%d")
ACCEPTED = "Unix seconds or milliseconds, or ISO 8601 as in 2021-01-01T10:00:00+08:00"


def numeric_milliseconds(column: str, dtype: pl.DataType) -> pl.Expr:
    """Return milliseconds as Int64 where a value is a number or a date type, null elsewhere."""
    if dtype.is_temporal():
        return pl.col(column).dt.epoch("ms")
    number = pl.col(column).cast(pl.Float64, strict=False)
    if dtype == pl.String:
        # Eight digits are a date written without dashes: as seconds they would lie before April 1973.
        number = pl.when(pl.col(column).str.len_bytes() != 8).then(number)
    scale = (
        pl.when(number.abs() >= _MICROSECONDS_FROM)
        .then(1e-3)
        .when(number.abs() >= _MILLISECONDS_FROM)
        .then(1.0)
        .otherwise(1e3)
    )
    return (number * scale).floor().cast(pl.Int64, strict=False)


def parse_text_times(texts: pl.Series) -> tuple[pl.Series, bool]:
    """Read times written as text.

    Returns:
        Milliseconds, null where a text is no time; and whether some time named no zone, for which UTC was assumed.
    """
    texts = texts.str.strip_chars().str.replace(r"[zZ]$", "+00:00")

    def parsed(formats: tuple[str, ...], dtype: type[pl.Date] | pl.Datetime) -> pl.Series:
        column = pl.Series([None], dtype=pl.Int64).new_from_index(0, len(texts))
        for format_ in formats:
            times = texts.str.strptime(dtype, format_, strict=False)
            epochs = times.cast(pl.Datetime("ms")).dt.epoch("ms") if dtype == pl.Date else times.dt.epoch("ms")
            column = column.fill_null(epochs) if column.null_count() else column
        return column

    zoned = parsed(_ZONED_FORMATS, pl.Datetime("ms", "UTC"))
    plain = parsed(_PLAIN_FORMATS, pl.Datetime("ms")).fill_null(parsed(_DATE_FORMATS, pl.Date))
    return zoned.fill_null(plain), bool((zoned.is_null() & plain.is_not_null()).any())
