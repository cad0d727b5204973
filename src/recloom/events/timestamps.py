"""Times as logs write them -> milliseconds since 1970, UTC."""

import polars as pl

ACCEPTED = "Unix seconds or milliseconds, or ISO 8601 as in 2021-01-01T10:00:00+08:00"
MILLISECONDS = "__milliseconds"
LACKS_ZONE = "__lacks_zone"
TIMES = pl.Struct({MILLISECONDS: pl.Int64, LACKS_ZONE: pl.Boolean})
"""What `read_times` returns for each row."""

# A number from 1e11 on is not seconds (that is the year 5138) but milliseconds, and so on by thousands.
_MILLISECONDS_FROM, _MICROSECONDS_FROM, _NANOSECONDS_FROM = 1e11, 1e14, 1e17
# Eight digits such as 20210131 are a date without dashes: as seconds they lie in August 1970.
_DATES_WITHOUT_DASHES = (19_000_101, 20_991_231)
_LARGEST = 9e15  # milliseconds beyond this overflow sooner or later, and are no time of ours: the year is 287,000

# Most frequent first: a format is tried only on what those before it could not read.
_FORMATS_WITH_ZONE = (
    "%Y-%m-%dT%H:%M:%S%.fZ",
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f %#z",
    "%Y-%m-%d %H:%M:%S%.f UTC",
    "%Y-%m-%d %H:%M:%S%.fZ",
    "%Y-%m-%dT%H:%MZ",
    "%Y-%m-%dT%H:%M%#z",
    "%Y-%m-%d %H:%M%#z",
)
_FORMATS_WITHOUT_ZONE = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
    "%Y/%m/%d %H:%M:%S%.f",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d",
    "%Y%m%d",
)


def read_times(times: pl.Series) -> pl.Series:
    """Read times in any of the accepted forms, each row by itself.

    Args:
        times: Numbers, text, dates or datetimes.

    Returns:
        Structs of type `TIMES`: milliseconds since 1970 in UTC, null where the value is no time; and whether it
        names no zone, so that UTC was assumed. Numbers count from 1970 in UTC and need no zone.
    """
    if times.dtype.is_temporal():
        has_zone = isinstance(times.dtype, pl.Datetime) and times.dtype.time_zone is not None
        lacks_zone = times.is_not_null() & (not has_zone)
        return _as_struct(times.cast(pl.Datetime("ms"), strict=False).dt.epoch("ms"), lacks_zone)
    if times.dtype == pl.String:
        times = times.str.strip_chars()
    milliseconds = _from_numbers(times)
    if milliseconds.null_count() == times.null_count():
        return _as_struct(milliseconds, pl.repeat(False, len(times), eager=True))
    texts = times.cast(pl.String)
    milliseconds = _fill_from_text(milliseconds, texts, _FORMATS_WITH_ZONE)
    lacks_zone = milliseconds.is_null()
    milliseconds = _fill_from_text(milliseconds, texts, _FORMATS_WITHOUT_ZONE)
    return _as_struct(milliseconds, lacks_zone & milliseconds.is_not_null())


def _from_numbers(times: pl.Series) -> pl.Series:
    number = times.cast(pl.Float64, strict=False).alias("number")
    size = pl.col("number").abs()
    scale = (
        pl.when(size >= _NANOSECONDS_FROM)
        .then(1e-6)
        .when(size >= _MICROSECONDS_FROM)
        .then(1e-3)
        .when(size >= _MILLISECONDS_FROM)
        .then(1.0)
        .otherwise(1e3)
    )
    scaled = (pl.col("number") * scale).floor()
    is_time = scaled.abs().le(_LARGEST) & ~size.is_between(*_DATES_WITHOUT_DASHES)
    return number.to_frame().select(pl.when(is_time).then(scaled).cast(pl.Int64))["number"]


def _fill_from_text(milliseconds: pl.Series, texts: pl.Series, formats: tuple[str, ...]) -> pl.Series:
    for format_ in formats:
        rest = texts.set(milliseconds.is_not_null(), None)
        if rest.null_count() == len(rest):
            break
        zone = "UTC" if "%#z" in format_ else None
        read = rest.str.strptime(pl.Datetime("ms", zone), format_, strict=False).dt.epoch("ms")
        milliseconds = milliseconds.fill_null(read)
    return milliseconds


def _as_struct(milliseconds: pl.Series, lacks_zone: pl.Series) -> pl.Series:
    return pl.DataFrame({MILLISECONDS: milliseconds, LACKS_ZONE: lacks_zone}).to_struct()


def read_seconds(value: str | float) -> int | None:
    """Read one time in any of the accepted forms as UTC seconds; None where it is none."""
    milliseconds = read_times(pl.Series([value])).struct.field(MILLISECONDS)[0]
    return None if milliseconds is None else int(milliseconds) // 1000
