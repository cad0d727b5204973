"""Each mistake ends in one sentence and exit 2 or 1, and leaves what was there before intact."""

import errno
import shutil

import h5py
import pytest

from recloom import Dataset, Recommender
from recloom.files import write_checksums

HEADER = "user_id,item_id,timestamp\n"
ROWS = "a,x,1700000000\na,y,1700000100\nb,x,1700000200\n"


@pytest.fixture
def prepared(tmp_path, run):
    """A log, and a dataset made from it earlier."""
    (tmp_path / "log.csv").write_text(HEADER + ROWS)
    assert run("prepare", tmp_path / "log.csv", "--out", tmp_path / "dataset")[0] == 0
    return tmp_path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file"),
        (b"", "is empty"),
        (HEADER.encode(), "nothing usable"),
        (b"user_id^item_id^timestamp\na^x^1\n", "lacks the column"),
        (b"user_id,item_id,when\na,x,1\n", "timestamp"),
        (b"\x00\x01\x02\x03" * 50, "binary"),
        ("user_id,item_id,timestamp\n张,x,1700000000\n".encode("gb18030"), "UTF-8"),
        (b"user_id,item_id,timestamp\na,x,yesterday\nb,y,today\n", "yesterday"),
        (b"user_id,item_id,timestamp\n,x,1\na,,1\n", "nothing usable"),
    ],
    ids=["missing", "empty", "header only", "delimiter", "column", "binary", "encoding", "words for times", "no ids"],
)
def test_a_log_that_cannot_be_used_is_one_sentence_and_changes_nothing(run, prepared, content, message):
    bad = prepared / "bad.csv"
    if content is not None:
        bad.write_bytes(content)
    before = (prepared / "dataset" / "dataset.h5").read_bytes()
    code, _, err = run("prepare", bad, "--out", prepared / "dataset")
    assert code == 2
    assert err.startswith("recloom: ")
    assert len(err.strip().splitlines()) == 1
    assert message in err
    assert (prepared / "dataset" / "dataset.h5").read_bytes() == before


@pytest.mark.parametrize(
    ("log", "items"),
    [
        (HEADER + ROWS + "c,z,1700000300\n", "item_id,title\nx,Ex\n"),  # one event of c; z and y without a row
        (HEADER + ROWS, "item_id,title\nx,\ny,Why\n"),  # a row without text
        (HEADER + ROWS, "item_id,title\nx,Ex\nx,Twice\ny,Why\n"),  # an id twice
        (HEADER + ROWS.replace("x", "007"), "item_id,title\n007,Bond\n"),  # ids with leading zeros
        (HEADER + ROWS, "item_id,title\nx," + "long " * 2_000_000 + "\n"),  # 10 MB in one field
    ],
    ids=["strangers", "no text", "duplicate", "zeros", "10 MB"],
)
def test_odd_but_usable_data_goes_all_the_way(run, tmp_path, log, items):
    (tmp_path / "log.csv").write_text(log)
    (tmp_path / "items.csv").write_text(items)
    assert run("prepare", tmp_path / "log.csv", "--items", tmp_path / "items.csv", "--out", tmp_path / "d")[0] == 0
    assert (
        run("fit", tmp_path / "d", "--out", tmp_path / "m", "--encoder", "hashing", "--set", "training.epochs=2")[0]
        == 0
    )
    item = Dataset.open(tmp_path / "d").items.ids[0]
    code, out, _ = run("recommend", tmp_path / "m", "--user", "b", "--include-seen")
    assert code == 0
    assert item in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit", "{}/nowhere", "--out", "{}/m"], "no dataset at"),
        (["fit", "{}/dataset", "--out", "{}/m", "--model", "weav"], "unknown model 'weav'; did you mean weave?"),
        (["fit", "{}/dataset", "--out", "{}/m", "--set", "training.epoch=3"], "did you mean epochs?"),
        (["fit", "{}/dataset", "--out", "{}/m", "--set", "trainin.epochs=3"], "did you mean training?"),
        (["fit", "{}/dataset", "--out", "{}/m", "--budget", "soon"], "write it as 90s"),
        (["fit", "{}/dataset", "--out", "{}/m", "--encoder", "minilmm"], "minilm"),
        (["fit", "{}/dataset", "--out", "{}/m", "--encoder", "{}/dataset"], "dataset"),
        (["fit", "{}/dataset", "--out", "{}/dataset"], "holds something that is not a model"),
        (["fit", "{}/dataset", "--out", "{}/events.csv"], "holds something that is not a model"),
        (["recommend", "{}/weave", "--user", "nobody"], "user 'nobody' is not among the 120 users"),
        (["recommend", "{}/weave", "--user", "u001", "--k", "0"], "k is 0"),
        (["recommend", "{}/weave"], "say for whom, in one way"),
        (["recommend", "{}/weave", "--user", "u001", "--context", "phone"], "not of the form name=value"),
        (
            ["recommend", "{}/weave", "--user", "u001", "--context", "planet=Mars"],
            "unknown context planet; there are: timestamp, device",
        ),
        (["recommend", "{}/weave", "--user", "u001", "--out", "lists.xls"], "choose .csv, .parquet, .jsonl"),
        (["recommend", "{}/weave", "--histories", "{}/events.csv"], "line 1 of"),
        (["recommend", "{}/popular", "--user", "u001", "--items", "{}/items.csv"], "without item text"),
        (["similar", "{}/weave", "1"], "item '1' is not in the catalogue of 40 items"),
        (["evaluate", "{}/weave", "--k", "five"], "write it as 5,10,20"),
        (["evaluate", "{}/dataset"], "is not a model folder: it lacks config.toml"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_callers_mistake_is_one_sentence_and_exit_2(run, shop, words, message):
    code, _, err = run(*(word.replace("{}", str(shop)) for word in words))
    assert code == 2
    assert err.startswith("recloom: ")
    assert len(err.strip().splitlines()) == 1
    assert message in err
    assert not (shop / "m").exists()


def test_an_encoder_folder_without_weights_is_refused(run, shop, tmp_path):
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "config.json").write_text('{"model_type": "bert"}')
    code, _, err = run("fit", shop / "dataset", "--out", tmp_path / "m", "--encoder", tmp_path / "encoder")
    assert code == 2
    assert len(err.strip().splitlines()) == 1


def broken(shop, tmp_path, name, change):
    """Copy a model and change one of its files."""
    shutil.copytree(shop / "weave", tmp_path / "model")
    path = tmp_path / "model" / name
    content = path.read_bytes()
    path.unlink()  # the dataset is a link that other folders share
    changed = change(content)
    if changed is not None:
        path.write_bytes(changed)
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("config.toml", lambda text: text.replace(b"format = 6", b"format = 9"), "is a model of format 9"),
        ("config.toml", lambda text: b"[recloom", "is damaged"),
        ("model.safetensors", lambda _: None, "it lacks model.safetensors"),
        ("model.safetensors", lambda weights: weights[:100], "is damaged"),
        (
            "config.toml",
            lambda text: text.replace(b"embedding_dim = 256", b"embedding_dim = 32"),
            "config.toml is not what was written",
        ),
        ("SHA256SUMS", lambda _: None, "SHA256SUMS is not what was written"),
        ("dataset.h5", lambda _: None, "dataset.h5 is not what was written"),
        ("dataset.h5", lambda data: data[: len(data) // 2], "dataset.h5 is not what was written"),
    ],
)
def test_a_model_of_another_version_or_a_damaged_one_is_refused(run, shop, tmp_path, name, change, message):
    code, _, err = run("recommend", broken(shop, tmp_path, name, change), "--user", "u001")
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert message in err


def test_a_config_that_was_changed_and_signed_anew_does_not_fit_its_weights(run, shop, tmp_path):
    folder = broken(shop, tmp_path, "config.toml", lambda text: text.replace(b"dim = 256", b"dim = 32"))
    write_checksums(folder)
    code, _, err = run("recommend", folder, "--user", "u001")
    assert (code, "do not fit its config" in err) == (2, True)


def test_a_full_disk_while_preparing_leaves_the_dataset_as_it_was(run, prepared, monkeypatch):
    before = (prepared / "dataset" / "dataset.h5").read_bytes()

    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(h5py.Group, "create_dataset", full)
    code, _, err = run("prepare", prepared / "log.csv", "--out", prepared / "dataset")
    assert code == 1
    assert "No space left on device; what was there before is unchanged" in err
    assert (prepared / "dataset" / "dataset.h5").read_bytes() == before
    assert not list((prepared / "dataset").glob(".*"))


def test_a_full_disk_while_saving_a_model_leaves_the_model_as_it_was(run, shop, tmp_path, monkeypatch):
    fit = ["fit", shop / "dataset", "--out", tmp_path / "m", "--model", "popular"]
    assert run(*fit)[0] == 0

    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("recloom.recommender.save_file", full)
    code, _, err = run(*fit)
    assert code == 1
    assert "No space left on device" in err
    assert Recommender.load(tmp_path / "m").recommend("u001").items
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("encoding", ["gbk", "utf-16"])
def test_a_text_in_the_wrong_encoding_is_one_sentence_and_the_plain_recommendation_still_comes(
    run, shop, tmp_path, encoding
):
    ask = ["recommend", shop / "weave", "--user", "u001"]
    plain = run(*ask)
    (tmp_path / "items.csv").write_bytes("item_id,title\nnew,红色连衣裙\n".encode(encoding))
    (tmp_path / "asked.jsonl").write_bytes('{"query_id": "红", "history": ["0001"]}\n'.encode(encoding))
    (tmp_path / "run.toml").write_bytes('[encoder]\nname = "红色"\n'.encode(encoding))
    for words in (
        ["prepare", shop / "events.csv", "--items", tmp_path / "items.csv", "--out", tmp_path / "dataset"],
        [*ask, "--items", tmp_path / "items.csv"],
        ["recommend", shop / "weave", "--histories", tmp_path / "asked.jsonl"],
        ["fit", shop / "dataset", "--out", tmp_path / "model", "--config", tmp_path / "run.toml"],
    ):
        code, _, err = run(*words)
        assert code == 2, words
        assert len(err.strip().splitlines()) == 1
        assert "UTF-8" in err
    assert run(*ask) == plain == (0, plain[1], "")
    assert not (tmp_path / "dataset").exists()
