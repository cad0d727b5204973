import codecs
import gzip
import io
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest

from recloom.errors import DataError
from recloom.events import read_interactions, read_items
from recloom.events.sources import find_files

Write = Callable[[str, str | bytes], Path]

ROWS = [("007", "x", 1_600_000_000), ("8", "y", 1_600_000_001)]
TEXT = "user_id,item_id,timestamp\n" + "".join(f"{u},{i},{t}\n" for u, i, t in ROWS)
OBJECTS = [{"user_id": u, "item_id": i, "timestamp": t} for u, i, t in ROWS]


def parquet() -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame(OBJECTS).write_parquet(buffer)
    return buffer.getvalue()


def hdf5(kind: str) -> bytes:
    buffer = io.BytesIO()
    users, items, times = ([row[position] for row in ROWS] for position in range(3))
    with h5py.File(buffer, "w") as file:
        if kind == "compound":
            dtype = [("user_id", "S3"), ("item_id", "S1"), ("timestamp", "i8")]
            file["log"] = np.array([(u.encode(), i.encode(), t) for u, i, t in ROWS], dtype=dtype)
        else:
            group = file.create_group("events") if kind == "group" else file
            group.create_dataset("user_id", data=users, dtype=h5py.string_dtype())
            group["item_id"] = np.array(items, dtype="S1")
            group["timestamp"] = np.array(times)
    return buffer.getvalue()


def spelled(path: object) -> list[tuple[str, str, int]]:
    return read_interactions(path).table.select("user_id", "item_id", "timestamp").rows()


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("log.csv", TEXT.encode()),
        ("log.csv", TEXT.replace(",", ";").encode()),
        ("log.csv", TEXT.replace(",", "|").encode()),
        ("log.tsv", TEXT.replace(",", "\t").encode()),
        ("log.csv", TEXT.replace("\n", "\r\n").encode()),
        ("log.csv", TEXT.encode("utf-8-sig")),
        ("log.csv", TEXT.rstrip("\n").encode()),
        ("log.jsonl", "\n".join(map(json.dumps, OBJECTS)).encode()),
        ("log.ndjson", "\n".join(map(json.dumps, OBJECTS)).encode()),
        ("log.json", json.dumps(OBJECTS, indent=1).encode()),
        ("log.parquet", parquet()),
        ("log.h5", hdf5("root")),
        ("log.hdf5", hdf5("group")),
        ("log.h5", hdf5("compound")),
    ],
)
def test_every_format_gives_the_same_interactions(write: Write, name: str, content: bytes, zipped: bool) -> None:
    path = write(f"{name}.gz" if zipped else name, gzip.compress(content) if zipped else content)
    assert spelled(path) == ROWS


@pytest.mark.parametrize("as_text", [False, True], ids=["path", "str"])
def test_a_folder_a_glob_and_a_list_read_all_of_their_files(write: Write, tmp_path: Path, as_text: bool) -> None:
    first = write("day1.csv", TEXT)
    write("day2.csv.gz", gzip.compress(TEXT.replace("160", "161").encode()))
    write("notes.md", "not a log")
    both = [
        ("007", "x", 1_600_000_000),
        ("007", "x", 1_610_000_000),
        ("8", "y", 1_600_000_001),
        ("8", "y", 1_610_000_001),
    ]
    kind = str if as_text else Path
    assert spelled(kind(tmp_path)) == both
    assert spelled(kind(tmp_path / "day*")) == both
    assert spelled([kind(first), kind(tmp_path / "day2.csv.gz")]) == both


def test_a_file_that_two_globs_name_is_read_once(write: Write, tmp_path: Path) -> None:
    path = write("log.csv", TEXT)
    assert find_files([path, tmp_path / "*.csv"]) == [path]


def test_integers_of_typed_formats_are_spelled_as_integers(write: Write) -> None:
    lines = (
        '{"user_id": 1001, "item_id": 7, "timestamp": 1600000000}\n{"user_id": null, "item_id": 7, "timestamp": 1}\n'
    )
    assert spelled(write("log.jsonl", lines)) == [("1001", "7", 1_600_000_000)]


def test_ids_of_mixed_json_types_are_spelled_as_they_are(write: Write) -> None:
    lines = '{"item_id": 1, "title": "one"}\n{"item_id": "02", "title": "two"}\n'
    assert read_items(write("items.jsonl", lines)).table["item_id"].to_list() == ["1", "02"]


def test_lists_are_joined_and_objects_become_json(write: Write) -> None:
    items = [
        {"ItemId": "a", "Categories": ["book", "sale"], "Labels": {"colour": "red"}},
        {"ItemId": "b", "Categories": [], "Labels": None},
    ]
    assert read_items(write("items.json", json.dumps(items))).table.rows() == [
        ("a", "book|sale", '{"colour":"red"}'),
        ("b", None, None),
    ]


def test_lists_of_parquet_are_joined_too(write: Write) -> None:
    buffer = io.BytesIO()
    pl.DataFrame({"item_id": [1], "tags": [["a", "b"]], "new": [True], "price": [float("nan")]}).write_parquet(buffer)
    assert read_items(write("items.parquet", buffer.getvalue())).table.rows() == [("1", "a|b", "true", None)]


def test_movielens_files_are_read_as_shipped(write: Write) -> None:
    log = read_interactions(write("ratings.dat", "1::1193::5::978300760\n2::661::3::978302109\n"))
    assert log.table.rows() == [
        ("1", "1193", "interaction", 978300760, 5.0),
        ("2", "661", "interaction", 978302109, 3.0),
    ]
    items = read_items(
        write("movies.dat", 'Ö::"No" 2::Drama\n73::Misérables, Les (1995)::Drama|Musical\n'.encode("latin-1"))
    )
    assert items.table.rows() == [("Ö", '"No" 2', "Drama"), ("73", "Misérables, Les (1995)", "Drama|Musical")]


def test_two_colons_in_json_are_not_movielens(write: Write) -> None:
    assert (
        read_items(write("items.jsonl", '{"item_id": "a", "title": "std::vector"}\n')).table["title"].item()
        == "std::vector"
    )


def test_line_numbers_are_the_files_own(write: Write) -> None:
    csv = "user_id,item_id,timestamp\na,x,1600000000\n\n,x,1600000000\na,,1600000000\n"
    assert read_interactions(write("log.csv", csv)).rejects["line"].to_list() == [4, 5]
    lines = '{"user_id": "a", "item_id": "x", "timestamp": 1600000000}\n{"item_id": "x", "timestamp": 1600000000}\n'
    assert read_interactions(write("log.jsonl", lines)).rejects["line"].to_list() == [2]
    dat = "a::x::5::1600000000\na::::5::1600000000\n"
    assert read_interactions(write("ratings.dat", dat)).rejects["line"].to_list() == [2]


def test_quoted_fields_may_hold_separators_quotes_and_line_breaks(write: Write) -> None:
    items = read_items(write("items.csv", 'item_id,title\n1,"a, ""b""\nc"\n'))
    assert items.table["title"].to_list() == ['a, "b"\nc']


def test_ten_megabytes_in_one_field_are_read_quickly(write: Write) -> None:
    path = write("items.csv", "item_id,title\n1,short\n2," + "x" * 10_000_000 + "\n")
    started = time.monotonic()
    assert read_items(path).table["title"].str.len_bytes().to_list() == [5, 10_000_000]
    assert time.monotonic() - started < 5


HEADER = "user_id,item_id,timestamp\n"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("log.csv", "", "log.csv is empty; wanted a header and rows"),
        ("log.csv", " \n\n", "log.csv is empty"),
        (
            "log.csv",
            HEADER,
            "holds nothing usable: no rows below the header; wanted rows with user_id, item_id, timestamp",
        ),
        ("log.csv", b"user_id\0item_id", "is a binary file; wanted CSV, TSV, JSON lines, Parquet or HDF5"),
        ("log.csv", (HEADER + "a,x,1\n").encode("utf-16"), r"is UTF-16; wanted UTF-8, convert it with: iconv -f"),
        (
            "log.csv",
            "用户ID,商品ID,时间戳\n".encode("gb18030"),
            r"not UTF-8 in line 1, at byte 0; it may be GB18030 \(GBK\), then convert",
        ),
        (
            "log.csv",
            HEADER.encode() + b"a,x,1600000000\n" * 10_000 + "用户,x,1600000000\n".encode("gb18030"),
            r"in line 10,002, at byte 150,026; it may be GB18030 .*iconv -f GB18030 -t UTF-8 log.csv > utf8-log.csv",
        ),
        ("log.csv", HEADER.encode() + b"Ren\xe9,x,1600000000\n", "not UTF-8 in line 2, at byte 29; it may be Latin-1"),
        ("log.csv", HEADER + 'a,"x,1600000000\nb,y,1600000000\n', "has a quote that is opened and not closed"),
        ("log.csv", "user_id,item_id,timestamp,item_id\n", "has two columns named 'item_id'; rename one"),
        (
            "log.jsonl",
            '{"user_id": 1}\n{"user_id":\n',
            r"line 2 of .*log.jsonl is not JSON .*; wanted one object a line",
        ),
        (
            "log.jsonl",
            '{"user_id": 1, "item_id": 2, "timestamp": 3}\n5\n',
            r"line 2 of .*log.jsonl is not a JSON object; wanted one object a line",
        ),
        ("log.json", '[{"user_id": 1}', "log.json cannot be read"),
        ("log.parquet", b"PAR1 and then nothing", "log.parquet is damaged or of a kind not known here"),
        ("log.h5", b"\x89HDF\r\n\x1a\n and then nothing", "log.h5 is damaged or of a kind not known here"),
        (
            "log.csv.gz",
            gzip.compress(HEADER.encode() + b"a,x,1600000000\n" * 9999, mtime=0)[:-30],
            "log.csv.gz is damaged",
        ),
        ("log.csv.gz", gzip.compress(HEADER.encode(), mtime=0)[:15], "log.csv.gz is damaged"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_sentence(
    write: Write, name: str, content: str | bytes, words: str
) -> None:
    with pytest.raises(DataError, match=words) as error:
        read_interactions(write(name, content))
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_folder_of_other_files_are_refused(write: Write, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file .*nothing.csv; give a file, a folder, or a glob in quotes"):
        read_interactions(tmp_path / "nothing.csv")
    write("readme.md", "words")
    with pytest.raises(DataError, match=r"the folder .* holds no file that can be read; wanted one of .csv, .tsv"):
        read_interactions(tmp_path)


def test_arrays_of_different_lengths_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.h5"
    with h5py.File(path, "w") as file:
        file["user_id"], file["item_id"] = [1, 2], [1]
    with pytest.raises(DataError, match=r"different shapes \(item_id \(1,\), user_id \(2,\)\); wanted one value a row"):
        read_interactions(path)


EVENTS = "user_id,item_id,timestamp\n{0},x,1700000000\n{1},y,1700000100\n"
ITEMS = "item_id,title\nx,{0}\ny,{1}\n"
CHINESE, FRENCH = ("红色连衣裙", "蓝色牛仔裤"), ("Misérables", "Zoë à Noël")
GB = (
    r"in line 2, at byte .*; it may be GB18030 \(GBK\), then convert it with: iconv -f GB18030 -t UTF-8 log.csv > utf8-"
)
LATIN = (
    r"in line 2, at byte .*; it may be Latin-1 \(Windows-1252\), then convert it with: iconv -f WINDOWS-1252 -t UTF-8"
)


@pytest.mark.parametrize(("read", "rows"), [(read_interactions, EVENTS), (read_items, ITEMS)], ids=["log", "catalogue"])
@pytest.mark.parametrize(
    ("words", "encoding", "message"),
    [
        (CHINESE, "gbk", GB),
        (("一本书", "两本书"), "gbk", GB),  # of which the first two bytes are a letter of UTF-8 as well
        (FRENCH, "latin-1", LATIN),  # of which é and r would be a Chinese character together
        (("“Noël” – 5 €", "l’été"), "cp1252", LATIN),
        (CHINESE, "utf-16", "is UTF-16; wanted UTF-8, convert it with: iconv -f UTF-16 "),
        (CHINESE, "utf-16-le", "is UTF-16LE; wanted UTF-8, convert it with: iconv -f UTF-16LE "),
        (FRENCH, "utf-16-be", "is UTF-16BE; wanted UTF-8, convert it with: iconv -f UTF-16BE "),
        (FRENCH, "utf-32", "is UTF-32; wanted UTF-8, convert it with: iconv -f UTF-32 "),
    ],
    ids=["gbk", "gbk-that-begins-like-utf-8", "latin-1", "cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32"],
)
def test_text_in_another_encoding_is_refused_with_the_line_and_how_to_convert_it(
    write: Write, read: Callable, rows: str, words: tuple[str, str], encoding: str, message: str
) -> None:
    content = rows.format(*words)
    path = write("log.csv", content.encode(encoding))
    with pytest.raises(DataError, match=message) as error:
        read(path)
    assert "\n" not in str(error.value)
    command = str(error.value).split("convert it with: ")[1]
    subprocess.run(command, shell=True, cwd=path.parent, check=True)
    assert path.with_name("utf8-log.csv").read_text("utf-8").removeprefix("\ufeff") == content
    assert len(read(path.with_name("utf8-log.csv")).table) == 2


def test_how_to_convert_what_is_gzipped_is_said_too(write: Write) -> None:
    path = write("log.csv.gz", gzip.compress(EVENTS.format(*CHINESE).encode("gbk")))
    with pytest.raises(DataError, match="GB18030") as error:
        read_interactions(path)
    subprocess.run(str(error.value).split("convert it with: ")[1], shell=True, cwd=path.parent, check=True)
    assert read_interactions(path.with_name("utf8-log.csv.gz")).table["user_id"].to_list() == list(CHINESE)


def test_a_single_damaged_line_is_not_taken_for_another_encoding(write: Write) -> None:
    with pytest.raises(DataError, match=r"in line 3, at byte .*, and what comes before is; mend or remove that line"):
        read_items(write("log.csv", ITEMS.format("红色", "?").encode().replace(b"?", b"\xe9t\xe9")))


@pytest.mark.parametrize("name", ["items.csv", "items.jsonl", "items.json"])
def test_a_byte_order_mark_before_utf_8_is_passed_over(write: Write, name: str) -> None:
    content = {
        "items.csv": "item_id,title\nx,红色\n",
        "items.jsonl": '{"item_id": "x", "title": "红色"}\n',
        "items.json": '[{"item_id": "x", "title": "红色"}]',
    }[name]
    items = read_items(write(name, codecs.BOM_UTF8 + content.encode()))
    assert items.table.select("item_id", "title").rows() == [("x", "红色")]
