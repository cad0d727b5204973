"""What goes wrong in a model's life ends in one sentence, and the model that was there still answers."""

import errno
import shutil

import pytest

from recloom import Recommender
from recloom.files import write_checksums
from recloom.lifecycle.versions import changing

HEADER = "user_id,item_id,timestamp,behavior,device\n"
OLD_EVENT = "u001,0007,1500000000,view,web\n"


@pytest.fixture
def life(shop, tmp_path):
    """A model to change, logs of something new and of something older than all that is known, and a new item."""
    shutil.copytree(shop / "weave", tmp_path / "weave")
    (tmp_path / "later.csv").write_text(HEADER + "u001,0005,1750000000,view,web\nu002,0006,1750000100,view,phone\n")
    (tmp_path / "older.csv").write_text(HEADER + OLD_EVENT)
    (tmp_path / "times.csv").write_text(HEADER.replace("timestamp", "moment") + OLD_EVENT)
    (tmp_path / "words.csv").write_text(HEADER + OLD_EVENT.replace("1500000000", "once"))
    (tmp_path / "items.csv").write_text("item_id,title\nnew,steel pan\n")
    return tmp_path


def names(folder):
    """Return what lies in a folder, but for the lock of the model that is there."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".weave.lock")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["update", "{}/weave"], "there is nothing to learn from"),
        (["update", "{}/nowhere", "{}/later.csv"], "nowhere; make one with: recloom fit"),
        (["update", "{}/no/where", "{}/later.csv"], "there is no model at"),
        (["forget", "{}/nowhere", "--user", "u001"], "there is no model at"),
        (["update", "{}/weave", "{}/nowhere.csv"], "there is no file"),
        (["update", "{}/weave", "{}/times.csv"], "lacks the column"),
        (["update", "{}/weave", "{}/words.csv"], "once"),
        (["update", "{}/weave", "{}/later.csv", "--retire"], "retiring items needs the catalogue of those that stay"),
        (["update", "{}/weave", "{}/later.csv", "--set", "model.network=gru"], "options of [update] only"),
        (["update", "{}/weave", "{}/later.csv", "--set", "update.replays=3"], "did you mean replay?"),
        (["versions", "rollback", "{}/weave", "--to", "v0009"], "holds no versions yet"),
        (["forget", "{}/weave", "--user", "nobody"], "knows nobody called 'nobody'; nothing was removed"),
        (["disclose", "{}/weave", "--user", "nobody", "--out", "{}/held.json"], "nobody"),
        (
            ["compress", "{}/weave", "--out", "{}/small", "--method", "int4"],
            "did you mean int8?",
        ),
        (["compress", "{}/weave", "--out", "{}/weave", "--method", "int8"], "is the model itself, which would be lost"),
        (
            ["export", "{}/weave", "--format", "pmml", "--out", "{}/graph"],
            "unknown format 'pmml'; there are: onnx, mlflow",
        ),
        (["doctor", "{}/weave", "{}/times.csv"], "lacks the column"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_in_a_models_life_is_one_sentence_and_changes_nothing(run, life, words, message):
    before = names(life)
    code, _, err = run(*(word.replace("{}", str(life)) for word in words))
    assert code == 2, err
    assert err.startswith("recloom: ")
    assert len(err.strip().splitlines()) == 1
    assert message in err
    assert names(life) == before
    assert Recommender.load(life / "weave").recommend("u001").items


def test_events_older_than_what_is_known_are_learned_and_counted(run, life):
    code, out, err = run("update", life / "weave", life / "older.csv")
    assert (code, err) == (0, "")
    assert "older than what was known" in out
    code, out, _ = run("update", life / "weave", life / "older.csv")
    assert code == 0
    assert "Nothing in it is new" in out


def test_an_update_during_another_one_is_refused(run, life):
    with changing(life / "weave"):
        code, _, err = run("update", life / "weave", life / "later.csv")
    assert code == 2
    assert "is being updated by another process" in err


def test_new_text_for_an_encoder_that_is_gone(run, life):
    config = (life / "weave" / "config.toml").read_text()
    (life / "weave" / "config.toml").write_text(config.replace('"hashing"', f'"{life}/gone"'))
    write_checksums(life / "weave")
    code, _, err = run("update", life / "weave", life / "later.csv", "--items", life / "items.csv")
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert "gone" in err
    assert Recommender.load(life / "weave").recommend("u001").items


def test_somebody_is_forgotten_once(run, life):
    code, _, err = run("forget", life / "weave", "--user", "u001", "--later")
    assert code == 0, err
    code, _, err = run("forget", life / "weave", "--user", "u001", "--later")
    assert code == 2
    assert "knows nobody called 'u001'; nothing was removed" in err


def full(*_args, **_options):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_while_compressing_leaves_what_was_there(run, life, monkeypatch):
    shutil.copytree(life / "weave", life / "small")
    monkeypatch.setattr("recloom.compression.compressing.save_compact", full)
    code, _, err = run("compress", life / "weave", "--out", life / "small", "--method", "int8")
    assert code == 1
    assert "No space left on device; what was there before is unchanged" in err
    for name in ("weave", "small"):
        assert Recommender.load(life / name).recommend("u001").items
    assert [name for name in names(life) if name.startswith(".")] == []


def test_an_export_without_the_extra_names_it(run, life, monkeypatch):
    monkeypatch.setattr("recloom.compression.onnx_export.can_export", lambda: False)
    code, _, err = run("export", life / "weave", "--out", life / "graph")
    assert code == 2
    assert "pip install 'recloom[onnx]'" in err
    assert not (life / "graph").exists()


def test_a_full_disk_while_forgetting_leaves_a_model_that_says_what_it_knows(run, life, monkeypatch):
    monkeypatch.setattr("recloom.recommender.save_file", full)
    code, _, err = run("forget", life / "weave", "--user", "u001")
    assert code == 1
    assert "No space left on device" in err
    kept = Recommender.load(life / "weave")
    # Either all of it is there still, or what is there says that its weights carry somebody.
    assert "u001" in kept.dataset.users or kept.run.lineage["carries"]
