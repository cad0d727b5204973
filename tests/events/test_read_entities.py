from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from recloom.errors import DataError
from recloom.events import read_items, read_users

Write = Callable[[str, str | bytes], Path]


def test_items_have_text_and_numbers_in_the_order_of_the_file(write: Write) -> None:
    items = read_items(write("items.csv", "price,item_id,name,code\n2,01,Lamp,007\n,2,Chair,8\n"))
    assert items.table.schema == {"item_id": pl.String, "price": pl.Float64, "title": pl.String, "code": pl.String}
    assert items.table.rows() == [("01", 2.0, "Lamp", "007"), ("2", None, "Chair", "8")]


def test_numbers_too_long_to_be_exact_stay_text(write: Write) -> None:
    items = read_items(write("items.csv", "item_id,barcode,price\n1,12345678901234567,0.12345678901234567\n"))
    assert items.table.rows() == [("1", "12345678901234567", pytest.approx(0.12345678901234567))]


def test_the_first_of_a_repeated_item_stays(write: Write) -> None:
    items = read_items(write("items.csv", "item_id,title\n1,Lamp\n2,Chair\n1,Other lamp\n"))
    assert items.table.rows() == [("1", "Lamp"), ("2", "Chair")]
    assert items.report.dropped == {"item_id given before": 1}
    assert items.report.notes == ["1 rows were left out: item_id given before"]
    assert items.rejects.select("line", "reason", "item_id").rows() == [(4, "item_id given before", "1")]


def test_rows_without_id_or_with_too_many_fields_are_rejected(write: Write) -> None:
    items = read_items(write("items.csv", "item_id,title\n,Lamp\n1,Chair\n2,Lamp, blue\n"))
    assert items.table.rows() == [("1", "Chair")]
    assert items.report.dropped == {"missing item_id": 1, "too many fields": 1}


def test_an_item_without_text_stays_and_is_noted(write: Write) -> None:
    items = read_items(write("items.csv", "item_id,title,tags,image\n1,,,a.jpg\n2,Chair,,\n"))
    assert len(items.table) == 2
    assert items.report.notes == [
        "1 pictures that the catalogue names are not there",
        "1 items have no text; they are known by their ids alone",
    ]


def test_recbole_types_are_stripped(write: Write) -> None:
    items = read_items(
        write("ml.item", "item_id:token\tmovie_title:token_seq\trelease_year:token\n1\tToy Story\t1995\n")
    )
    assert items.table.rows() == [("1", "Toy Story", 1995.0)]


def test_a_file_without_an_item_is_refused(write: Write) -> None:
    with pytest.raises(DataError, match="holds no row with item_id filled in; wanted one row for each"):
        read_items(write("items.csv", "item_id,title\n,Lamp\n"))
    with pytest.raises(DataError, match="lacks the column item_id; found sku, title; map it with --column item_id=sku"):
        read_items(write("items.csv", "sku,title\n1,Lamp\n"))


def test_users_are_read_likewise(write: Write) -> None:
    users = read_users(write("users.user", "user_id:token\tage:token\tinterests:token_seq\n1\t24\tjazz\n1\t25\t\n"))
    assert users.table.rows() == [("1", 24.0, "jazz")]
    assert users.report.dropped == {"user_id given before": 1}


def test_catalogues_in_several_files_are_united(write: Write) -> None:
    first = write("1.csv", "item_id,title\n1,Lamp\n")
    second = write("2.jsonl", '{"item_id": 2, "title": "Chair", "price": 9.5}\n')
    assert read_items([first, second]).table.rows() == [("1", "Lamp", None), ("2", "Chair", 9.5)]
