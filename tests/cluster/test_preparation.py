import json
import os

import polars as pl
import pytest

from recloom.dataset import Dataset
from recloom.errors import DataError
from recloom.events import CleaningConfig, Pseudonyms
from tests.cluster.conftest import write_parts

ITEMS = pl.DataFrame({"item_id": ["i3", "i1", "i99"], "title": ["three", "one", "never taken"]})
USERS = pl.DataFrame({"user_id": ["u7", "u1", "nobody"], "city": ["Rome", "Oslo", "Bern"]})
RULES = [
    CleaningConfig(),
    CleaningConfig(repeat_seconds=600, max_events_per_hour=9, drop_duplicates=False),
    CleaningConfig(min_interactions=20),
]


@pytest.fixture
def log(tmp_path):
    write_parts(tmp_path / "log")
    ITEMS.write_csv(tmp_path / "items.csv")
    USERS.write_csv(tmp_path / "users.csv")
    return tmp_path


def kept(folder):
    """Return what lies beside a dataset: the reports, and the rejected rows in some order."""
    rejects = pl.read_csv(folder / "rejects.csv", infer_schema=False)
    return json.loads((folder / "report.json").read_text()), sorted(rejects.rows(), key=str)


@pytest.mark.parametrize("cleaning", RULES)
@pytest.mark.parametrize("rows_of_a_part", [100, 100_000])
def test_a_log_prepared_in_parts_is_what_it_is_at_once(in_turn, log, cleaning, rows_of_a_part):
    files = {"items": str(log / "items.csv"), "users": str(log / "users.csv")}
    once = Dataset.from_files(log / "log", out=log / "once", cleaning=cleaning, **files)
    parts, report, *_ = in_turn(
        [str(log / "log")], out=log / "parts", cleaning=cleaning, rows_of_a_part=rows_of_a_part, **files
    )
    assert parts.fingerprint == once.fingerprint
    assert parts.num_interactions == once.num_interactions == report.rows_kept
    assert kept(log / "parts") == kept(log / "once")
    assert not (log / ".parts.parts").exists()


def test_pseudonyms_are_the_same_in_parts(in_turn, log):
    pseudonyms = Pseudonyms(bytes(32))
    once = Dataset.from_files(log / "log", users=log / "users.csv", out=log / "once", pseudonyms=pseudonyms)
    parts, *_ = in_turn(
        [str(log / "log")],
        users=str(log / "users.csv"),
        out=log / "parts",
        pseudonyms=pseudonyms,
        rows_of_a_part=300,
    )
    assert parts.fingerprint == once.fingerprint
    assert parts.pseudonym_key_id == once.pseudonym_key_id
    assert "u1" not in (log / "parts" / "rejects.csv").read_text()


def test_columns_are_mapped_in_parts_too(in_turn, log):
    for path in (log / "log").iterdir():
        pl.read_parquet(path).rename({"user_id": "buyer"}).write_parquet(path)
    once = Dataset.from_files(log / "log", out=log / "once", columns={"user_id": "buyer"})
    parts, *_ = in_turn([str(log / "log")], out=log / "parts", columns={"user_id": "buyer"})
    assert parts.fingerprint == once.fingerprint
    with pytest.raises(DataError, match="there is no column 'seller' to use as user_id"):
        in_turn([str(log / "log")], out=log / "other", columns={"user_id": "seller"})


def test_files_are_read_by_their_url(in_turn, log):
    pytest.importorskip("fsspec")
    once = Dataset.from_files(log / "log")
    parts, report, *_ = in_turn([f"file://{log}/log/*.parquet"], out=log / "parts")
    assert parts.fingerprint == once.fingerprint
    assert report.files[0] == f"file://{log}/log/part-00000.parquet"
    with pytest.raises(DataError, match=r"there is no file file:///.*nothing"):
        in_turn([f"file://{log}/nothing/*.parquet"], out=log / "other")


def test_a_damaged_file_is_named_the_others_are_kept_and_the_same_call_goes_on(in_turn, log, monkeypatch):
    from recloom.cluster import log_parts

    once = Dataset.from_files(log / "log")
    damaged = log / "log" / "part-00001.parquet"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"part-00001.parquet is damaged.*the other 3 files are done and kept"):
        in_turn([str(log / "log")], out=log / "parts")
    assert not (log / "parts").exists()
    damaged.write_bytes(whole)
    read = []
    really = log_parts.read_log
    monkeypatch.setattr(
        log_parts, "read_log", lambda file, numbers: read.append(file.path.name) or really(file, numbers)
    )
    parts, *_ = in_turn([str(log / "log")], out=log / "parts")
    assert read == ["part-00001.parquet"]
    assert parts.fingerprint == once.fingerprint


def test_a_run_that_was_killed_goes_on_where_it_was(in_turn, log, monkeypatch):
    from recloom.cluster import preparation

    once = Dataset.from_files(log / "log")
    really = preparation.assemble
    monkeypatch.setattr(preparation, "assemble", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        in_turn([str(log / "log")], out=log / "parts", rows_of_a_part=300)
    done = {path: os.stat(path).st_mtime_ns for path in (log / ".parts.parts").rglob("dataset.h5")}
    assert len(done) > 3
    monkeypatch.setattr(preparation.shutil, "rmtree", lambda *_, **__: None)  # what was done stays to be looked at
    monkeypatch.setattr(preparation, "assemble", really)
    parts, *_ = in_turn([str(log / "log")], out=log / "parts", rows_of_a_part=300)
    assert parts.fingerprint == once.fingerprint
    assert {path: os.stat(path).st_mtime_ns for path in (log / ".parts.parts").rglob("dataset.h5")} == done


def test_rounds_of_dropping_write_no_interactions_again(in_turn, log, monkeypatch):
    from recloom.cluster import preparation

    monkeypatch.setattr(preparation.shutil, "rmtree", lambda *_, **__: None)  # what was done stays to be looked at
    in_turn([str(log / "log")], out=log / "parts", cleaning=CleaningConfig(min_interactions=20), rows_of_a_part=300)
    rounds = list((log / ".parts.parts" / "parts").glob("*.round*"))
    assert len({path.suffix for path in rounds}) >= 2
    assert not [path for one in rounds for path in one.glob("*") if path.name in ("rows.parquet", "dataset.h5")]


def test_more_parts_than_there_may_be_open_files_are_put_together(in_turn, log, monkeypatch):
    resource = pytest.importorskip("resource", reason="a limit of open files is for POSIX")
    from recloom.cluster import preparation

    really = preparation.assemble

    def with_few_files(parts, *arguments, **options):
        assert len(parts) > 12
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/dev/fd"))) + 8, hard))
        try:
            return really(parts, *arguments, **options)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    monkeypatch.setattr(preparation, "assemble", with_few_files)
    once = Dataset.from_files(log / "log", out=log / "once")
    parts, *_ = in_turn([str(log / "log")], out=log / "parts", rows_of_a_part=100)
    assert parts.fingerprint == once.fingerprint


def test_a_log_with_nothing_usable_is_refused_with_the_same_words(in_turn, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user_id,item_id,timestamp\n,a,1700000000\nu,,1700000000\n")
    with pytest.raises(DataError) as at_once:
        Dataset.from_files(path)
    with pytest.raises(DataError) as in_parts:
        in_turn([str(path)], out=tmp_path / "parts")
    assert str(in_parts.value) == str(at_once.value)
