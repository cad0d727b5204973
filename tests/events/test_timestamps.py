from datetime import UTC, date, datetime, timedelta, timezone

import polars as pl
import pytest

from recloom.events.timestamps import LACKS_ZONE, MILLISECONDS, read_times

# 2021-01-01 10:00:00 UTC
TEN_O_CLOCK = 1_609_495_200_000


def milliseconds(values: list[object], dtype: pl.DataType | type[pl.DataType] = pl.String) -> list[int | None]:
    return read_times(pl.Series(values, dtype=dtype)).struct.field(MILLISECONDS).to_list()


@pytest.mark.parametrize(
    "spelling",
    [
        "1609495200",
        "1609495200.0",
        " 1609495200 ",
        "1.6094952e9",
        "1609495200000",
        "1609495200000000",
        "1609495200000000000",
        "2021-01-01T10:00:00Z",
        "2021-01-01T10:00:00.000Z",
        "2021-01-01T10:00Z",
        "2021-01-01T18:00:00+08:00",
        "2021-01-01T18:00:00+0800",
        "2021-01-01T18:00:00+08",
        "2021-01-01T18:00+08:00",
        "2021-01-01 06:30:00-03:30",
        "2021-01-01 18:00:00 +0800",
        "2021-01-01 10:00:00 UTC",
        "2021-01-01T10:00:00",
        "2021-01-01 10:00:00",
        "2021-01-01 10:00",
        "2021/1/1 10:00",
        "2021/01/01 10:00:00",
    ],
)
def test_every_accepted_spelling_is_the_same_moment(spelling: str) -> None:
    assert milliseconds([spelling]) == [TEN_O_CLOCK]


@pytest.mark.parametrize("spelling", ["2021-01-01", "2021/1/1", "20210101"])
def test_a_date_alone_is_its_midnight(spelling: str) -> None:
    assert milliseconds([spelling]) == [TEN_O_CLOCK - 10 * 3_600_000]


@pytest.mark.parametrize("spelling", ["2021-01-01T10:00:00.250Z", "1609495200.25", "1609495200250"])
def test_a_fraction_of_a_second_is_kept_to_the_millisecond(spelling: str) -> None:
    assert milliseconds([spelling]) == [TEN_O_CLOCK + 250]


@pytest.mark.parametrize("spelling", ["yesterday", "nan", "inf", "1e30", "2021-13-01", "2021-02-30", "10:00", "", None])
def test_what_is_no_time_is_null(spelling: str | None) -> None:
    assert milliseconds([spelling]) == [None]


def test_each_row_is_read_by_itself() -> None:
    mixed = ["2021-01-01 10:00", "1609495200", "2021-01-01T18:00:00+08:00", "?", "1609495200000"]
    assert milliseconds(mixed) == [TEN_O_CLOCK, TEN_O_CLOCK, TEN_O_CLOCK, None, TEN_O_CLOCK]


def test_only_text_without_zone_is_said_to_lack_one() -> None:
    times = pl.Series(["1609495200", "2021-01-01T10:00:00Z", "2021-01-01T10:00:00", "2021-01-01", "?", None])
    assert read_times(times).struct.field(LACKS_ZONE).to_list() == [False, False, True, True, False, False]


def test_numbers_and_dates_need_no_text() -> None:
    assert milliseconds([1_609_495_200, 1_609_495_200_000], pl.Int64) == [TEN_O_CLOCK] * 2
    assert milliseconds([1_609_495_200.0, None], pl.Float64) == [TEN_O_CLOCK, None]
    assert milliseconds([20_210_101], pl.Int64) == [TEN_O_CLOCK - 10 * 3_600_000]
    assert milliseconds([date(2021, 1, 1)], pl.Date) == [TEN_O_CLOCK - 10 * 3_600_000]


def test_a_datetime_with_a_zone_is_brought_to_utc_and_one_without_is_said_to_lack_it() -> None:
    shanghai = datetime(2021, 1, 1, 18, tzinfo=timezone(timedelta(hours=8))).astimezone(UTC)
    for moment, dtype, lacks in [
        (shanghai, pl.Datetime("us", "Asia/Shanghai"), False),
        (datetime(2021, 1, 1, 10), pl.Datetime("ns"), True),
    ]:
        read = read_times(pl.Series([moment], dtype=dtype))
        assert read.to_list() == [{MILLISECONDS: TEN_O_CLOCK, LACKS_ZONE: lacks}]
