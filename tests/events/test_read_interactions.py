import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from recloom.errors import DataError
from recloom.events import read_interactions, read_tables

Write = Callable[[str, str | bytes], Path]

HEADER = "user_id,item_id,timestamp\n"
T = 1_600_000_000


def test_the_table_has_categories_times_and_context(write: Write) -> None:
    log = read_interactions(write("log.csv", f"device,user_id,rating,item_id,timestamp,weight\nphone,01,4.5,x,{T},2\n"))
    assert dict(log.table.schema) == {
        "user_id": pl.Categorical,
        "item_id": pl.Categorical,
        "behavior": pl.Categorical,
        "timestamp": pl.Int64,
        "weight": pl.Float32,
        "device": pl.Categorical,
        "rating": pl.Float32,
    }
    assert log.table.rows() == [("01", "x", "interaction", T, 2.0, "phone", 4.5)]


def test_an_empty_behavior_is_an_interaction(write: Write) -> None:
    log = read_interactions(write("log.csv", f"user_id,item_id,timestamp,behavior\na,x,{T},view\na,y,{T + 1},\n"))
    assert log.table["behavior"].to_list() == ["view", "interaction"]


def test_empty_context_is_null(write: Write) -> None:
    log = read_interactions(write("log.csv", f"user_id,item_id,timestamp,city,price\na,x,{T},,\na,y,{T},Bonn,3\n"))
    assert log.table.select("city", "price").rows() == [(None, None), ("Bonn", 3.0)]


def test_context_with_any_word_or_leading_zero_is_categories(write: Write) -> None:
    rows = f"a,x,{T},1,007,1\na,y,{T},two,8,2\n"
    log = read_interactions(write("log.csv", "user_id,item_id,timestamp,mixed,code,number\n" + rows))
    assert log.table.select("mixed", "code", "number").rows() == [("1", "007", 1.0), ("two", "8", 2.0)]


def test_rows_are_ordered_by_user_then_milliseconds_then_the_file(write: Write) -> None:
    rows = [f"b,1,{T}", f"a,2,{T}.900", f"a,3,{T}.100", f"b,4,{T}", f"a,5,{T - 1}"]
    log = read_interactions(write("log.csv", HEADER + "\n".join(rows)))
    assert log.table["item_id"].to_list() == ["5", "3", "2", "1", "4"]
    assert log.table["timestamp"].to_list() == [T - 1, T, T, T, T]


def test_files_with_different_columns_are_united(write: Write) -> None:
    first = write("1.csv", f"user_id,item_id,timestamp,city,size\na,x,{T},Bonn,1\n")
    second = write("2.jsonl", f'{{"user": "a", "item": "y", "ts": {T + 1}, "device": "phone", "size": "big"}}\n')
    log = read_interactions([first, second])
    assert log.table.select("item_id", "city", "size", "device").rows() == [
        ("x", "Bonn", "1", None),
        ("y", None, "big", "phone"),
    ]
    assert log.report.files == [str(first), str(second)]


def test_numbers_of_one_file_and_another_are_numbers(write: Write) -> None:
    first = write("1.csv", f"user_id,item_id,timestamp,price\na,x,{T},2.5\n")
    second = write("2.jsonl", f'{{"user_id": "a", "item_id": "y", "timestamp": {T + 1}, "price": 3}}\n')
    assert read_interactions([first, second]).table["price"].to_list() == [2.5, 3.0]


@pytest.mark.parametrize(
    ("row", "reason", "spelled"),
    [
        (f",x,{T}", "missing user_id", str(T)),
        (f"  ,x,{T}", "missing user_id", str(T)),
        (f"a,,{T}", "missing item_id", str(T)),
        ("a,x,", "missing timestamp", None),
        ("a,x", "missing timestamp", None),
        ("a,x,yesterday", "unreadable timestamp", "yesterday"),
        ("a,x,0", "impossible time", "0"),
        ("a,x,-5", "impossible time", "-5"),
        ("a,x,9900000000", "impossible time", "9900000000"),
        (f"a,x,{T},more", "too many fields", str(T)),
        (f"a,x,{T},,,more", "too many fields", str(T)),
    ],
)
def test_an_unusable_row_is_rejected_with_its_line_and_reason(
    write: Write, row: str, reason: str, spelled: str | None
) -> None:
    log = read_interactions(write("log.csv", f"{HEADER}a,x,{T}\n{row}\nb,y,{T}\n"))
    assert log.report.dropped == {reason: 1}
    assert (log.report.rows_read, log.report.rows_kept) == (3, 2)
    assert log.rejects.columns == ["file", "line", "reason", "user_id", "item_id", "timestamp"]
    rejected = log.rejects.row(0, named=True)
    assert (rejected["line"], rejected["reason"]) == (3, reason)
    assert rejected["timestamp"] == spelled


def test_times_up_to_a_day_ahead_are_possible(write: Write) -> None:
    soon, too_late = int(time.time()) + 80_000, int(time.time()) + 90_000
    assert read_interactions(write("log.csv", f"{HEADER}a,x,{soon}\na,x,86400\n")).report.dropped == {}
    dropped = read_interactions(write("log.csv", f"{HEADER}a,x,{too_late}\na,x,86400\n")).report.dropped
    assert dropped == {"impossible time": 1}


def test_rejects_have_their_columns_even_when_there_are_none(write: Write) -> None:
    rejects = read_interactions(write("log.csv", f"{HEADER}a,x,{T}\n")).rejects
    assert rejects.is_empty()
    assert rejects.columns == ["file", "line", "reason", "user_id", "item_id", "timestamp"]


def test_blank_lines_are_not_rows(write: Write) -> None:
    report = read_interactions(write("log.csv", f"{HEADER}\na,x,{T}\n,,\n\n")).report
    assert (report.rows_read, report.dropped) == (1, {})


def test_times_without_zone_are_noted(write: Write) -> None:
    rows = "a,x,2021-01-01 10:00\na,y,2021-01-01T10:00:00Z\n"
    log = read_interactions(write("log.csv", HEADER + rows))
    assert log.table["timestamp"].to_list() == [1_609_495_200] * 2
    assert log.report.notes == ["1 of 2 times name no zone; UTC was assumed"]
    assert read_interactions(write("log.csv", f"{HEADER}a,x,{T}\n")).report.notes == []


def test_weights_that_are_no_numbers_are_noted(write: Write) -> None:
    log = read_interactions(write("log.csv", f"user_id,item_id,timestamp,weight\na,x,{T},2\na,y,{T},heavy\n"))
    assert log.table["weight"].to_list() == [2.0, None]
    assert log.report.notes == ["1 of 2 interactions have no weight that is a number"]


def test_a_column_of_words_for_times_is_refused_with_an_example(write: Write) -> None:
    with pytest.raises(
        DataError, match=r"no readable time in its column when: the first is 'noon'; wanted Unix seconds"
    ):
        read_interactions(write("log.csv", "user_id,item_id,when\na,x,noon\nb,y,dusk\n"), columns={"timestamp": "when"})


def test_a_log_with_nothing_usable_is_refused_with_the_reasons(write: Write) -> None:
    with pytest.raises(DataError, match="holds nothing usable: 2 missing user_id, 1 missing item_id; wanted rows with"):
        read_interactions(write("log.csv", f"{HEADER},x,{T}\n,y,{T}\na,,{T}\n"))


def test_columns_are_mapped_by_the_caller(write: Write) -> None:
    path = write("log.csv", f"buyer,thing,when\na,x,{T}\n")
    with pytest.raises(DataError, match=r"lacks the column user_id; found buyer, thing, when; map it with --column"):
        read_interactions(path)
    log = read_interactions(path, columns={"user_id": "buyer", "item_id": "thing", "timestamp": "when"})
    assert log.report.columns == {"buyer": "user_id", "thing": "item_id", "when": "timestamp"}


def test_a_mapped_column_that_is_not_there_is_refused(write: Write) -> None:
    with pytest.raises(DataError, match="there is no column 'buyr' to use as user_id; found buyer, item_id, timestamp"):
        read_interactions(write("log.csv", "buyer,item_id,timestamp\n"), columns={"user_id": "buyr"})


def test_a_mapped_column_may_be_in_any_of_the_tables(write: Write) -> None:
    log = write("log.csv", f"buyer,item_id,timestamp\na,x,{T}\n")
    items = write("items.csv", "item_id,headline\nx,Hello\n")
    read, catalogue, people = read_tables(log, items, columns={"user_id": "buyer", "title": "headline"})
    assert read.table["user_id"].to_list() == ["a"]
    assert catalogue is not None
    assert catalogue.table.rows() == [("x", "Hello")]
    assert people is None
    with pytest.raises(DataError, match="there is no column 'name' to use as title"):
        read_tables(log, items, columns={"title": "name"})


def test_reading_twice_gives_the_same_table(write: Write) -> None:
    rows = [f"u{n * 7919 % 101},i{n * 31 % 57},{T + n * 104_729 % 5_000}" for n in range(20_000)]
    path = write("log.csv", HEADER + "\n".join(rows))
    first, second = read_interactions(path), read_interactions(path)
    assert first.table.equals(second.table)
    assert first.rejects.equals(second.rejects)
