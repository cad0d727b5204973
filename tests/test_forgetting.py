"""Who is forgotten is in no file any more, and in no weight."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recloom import Dataset, Recommender
from recloom.errors import DataError, UnknownIdError
from recloom.lifecycle.forgetting import Receipt, Removal, forget, read_key
from recloom.lifecycle.versions import add_version, changing, list_versions
from tests.test_updating import HEADER, LATER, OLD, OLD_ITEMS, SETTINGS

SOMEBODY = "somebody-who-wants-to-go"
THEIRS = [f"{SOMEBODY},i{item},{1_000_050 + item},web" for item in (1, 5, 2)]
AGAIN = [f"{SOMEBODY},i7,2000050,web"]


@pytest.fixture
def prepared(tmp_path):
    """A prepared dataset that holds somebody, one row of theirs among the rejects."""
    (tmp_path / "log.csv").write_text("\n".join([HEADER, *OLD, *THEIRS, f"{SOMEBODY},i3,no time,web"]) + "\n")
    (tmp_path / "items.csv").write_text("\n".join(["item_id,title", *OLD_ITEMS]) + "\n")
    Dataset.from_files(tmp_path / "log.csv", tmp_path / "items.csv", out=tmp_path / "kept" / "dataset")
    (tmp_path / "log.csv").unlink()
    return tmp_path / "kept" / "dataset"


@pytest.fixture
def model(prepared):
    folder = prepared.with_name("model")
    Recommender.fit(Dataset.open(prepared), settings=SETTINGS).save(folder)
    return folder


@pytest.fixture
def updated(model, tmp_path):
    (tmp_path / "later.csv").write_text("\n".join([HEADER, *LATER, *AGAIN]) + "\n")
    with changing(model):
        add_version(Recommender.load(model).update(tmp_path / "later.csv"), model)
    (tmp_path / "later.csv").unlink()
    return model


def traces(folder: Path) -> list[str]:
    """Return the files in which somebody's id can be read."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and SOMEBODY.encode() in path.read_bytes()]


def test_nothing_of_them_is_left_in_any_file(updated, prepared):
    assert len(traces(prepared.parent)) >= 4  # the dataset, its rejects, and two versions
    receipt, path = forget(updated, [SOMEBODY], datasets=[prepared])
    assert traces(prepared.parent) == []
    assert [version.name for version in list_versions(updated)] == ["v0004"]
    where = {removal.where: removal.interactions for removal in receipt.removed}
    assert where["dataset dataset"] == len(THEIRS)
    assert where["model model"] == len(THEIRS) + len(AGAIN)
    assert {"model model, version v0001", "model model, version v0002"} <= set(where)
    assert receipt.weights == "retrained"
    assert path.is_file()
    assert len(Dataset.open(prepared).users) == 30


def test_the_model_is_what_it_would_be_had_they_never_been_there(model, prepared, dataset_of):
    forget(model, [SOMEBODY])
    never = Recommender.fit(dataset_of(OLD, OLD_ITEMS, HEADER), settings=SETTINGS)
    forgotten = Recommender.load(model)
    assert forgotten.dataset.fingerprint == never.dataset.fingerprint
    for name, weight in never.model.state_dict().items():
        assert torch.equal(forgotten.model.state_dict()[name], weight), name
    assert all((forgotten.moments()[name] == values).all() for name, values in never.moments().items())


def test_weights_may_follow_later_and_the_receipt_says_so(model, prepared):
    before = Recommender.load(model).model.state_dict()
    receipt, _ = forget(model, [SOMEBODY], datasets=[prepared], retrain=False)
    assert traces(prepared.parent) == []
    assert (receipt.weights, receipt.first_version_without) == ("carry", "")
    carried = Recommender.load(model)
    name = "towers.0.items.ids.weight"
    assert torch.equal(carried.model.state_dict()[name], before[name])
    assert carried.counts_I[carried.dataset.items.index_of("i5")] == sum(",i5," in line for line in OLD)
    receipt, _ = forget(model, [])
    assert receipt.weights == "retrained"
    assert receipt.first_version_without
    assert not torch.equal(Recommender.load(model).model.state_dict()[name], before[name])


def test_an_update_in_between_does_not_hide_that_weights_carry(model, tmp_path):
    forget(model, [SOMEBODY], retrain=False)
    (tmp_path / "later.csv").write_text("\n".join([HEADER, *LATER]) + "\n")
    with changing(model):
        add_version(Recommender.load(model).update(tmp_path / "later.csv"), model)
    assert Recommender.load(model).run.lineage["carries"]
    receipt, _ = forget(model, [])
    assert receipt.weights == "retrained"
    after = Recommender.load(model)
    assert "carries" not in after.run.lineage
    assert after.dataset.num_interactions == len(OLD) + len(LATER)


def test_somebody_has_to_be_left(model):
    with pytest.raises(DataError, match="nothing would be left"):
        forget(model, list(Recommender.load(model).dataset.users.ids))


def test_a_receipt_can_be_checked_and_names_nobody(model):
    receipt, path = forget(model, [SOMEBODY], elsewhere=[Removal("the archive", 7)])
    read = Receipt.from_json(path.read_text())
    key = read_key(model)
    assert read == receipt
    assert read.is_genuine(key)
    assert not replace(read, weights="carry").is_genuine(key)
    assert not read.is_genuine(b"another key")
    assert SOMEBODY not in path.read_text()
    assert (model.with_name("model.receipts.key").stat().st_mode & 0o077) == 0


def test_somebody_unknown_or_forgotten_already(model):
    with pytest.raises(UnknownIdError, match="knows nobody called 'nobody'"):
        forget(model, ["nobody"])
    forget(model, [SOMEBODY])
    with pytest.raises(UnknownIdError, match="nothing was removed"):
        forget(model, [SOMEBODY])


def test_everything_that_is_held_on_somebody_is_written_down(updated, prepared, tmp_path):
    pytest.importorskip("sqlalchemy")
    from recloom.serving.database import Database
    from recloom.serving.store import Event, Store

    store = Store(Database(str(prepared.with_name("model.live.db"))))
    store.add([Event("e1", SOMEBODY, "i1", 1_900_000_000, "view", context={"device": "tv"})]).result()
    store.close()

    def run(user):
        command = [str(Path(sys.executable).with_name("recloom")), "disclose", str(updated), "--user", user]
        command += ["--out", str(tmp_path / "theirs.json"), "--dataset", str(prepared)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = run(SOMEBODY)
    assert done.returncode == 0, done.stderr
    held = json.loads((tmp_path / "theirs.json").read_text())
    assert set(held) == {
        str(updated / "v0001"),
        str(updated / "v0002"),
        str(prepared),
        "the service's database",
    }
    assert [what["item_id"] for what in held[str(updated / "v0002")]["interactions"]] == ["i1", "i2", "i5", "i7"]
    assert held[str(prepared)]["interactions"][0] == {
        "item_id": "i1",
        "timestamp": 1_000_051,
        "behavior": "interaction",
        "device": "web",
    }
    assert held["the service's database"]["events"][0]["event_id"] == "e1"
    refused = run("nobody")
    assert (refused.returncode, "nothing is held on 'nobody'" in refused.stderr) == (2, True)


def test_the_command_forgets_in_the_service_too(model, prepared):
    pytest.importorskip("sqlalchemy")
    from recloom.serving.database import Database
    from recloom.serving.store import Event, Store

    live = prepared.with_name("model.live.db")
    store = Store(Database(str(live)))
    store.add([Event("e1", SOMEBODY, "i1", 1_900_000_000, "view")]).result()
    store.close()

    def run(*words):
        command = [str(Path(sys.executable).with_name("recloom")), "forget", *map(str, words)]
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    done = run(model, "--user", SOMEBODY, "--dataset", prepared)
    assert done.returncode == 0, done.stderr
    assert "the service's database: 1 interactions removed" in done.stdout
    assert "trained without them" in done.stdout
    receipt = done.stdout.split("--check ")[1].strip()
    assert traces(prepared.parent) == []
    assert run(model, "--check", receipt).returncode == 0
    Path(receipt).write_text(Path(receipt).read_text().replace("retrained", "carry"))
    assert run(model, "--check", receipt).returncode == 1
    store = Store(Database(str(live)))
    store.forget("u07")  # as DELETE /v1/users/u07 does
    store.close()
    done = run(model)
    assert "users" not in done.stderr
    assert "u07" not in Recommender.load(model).dataset.users
    refused = run(model, "--user", "nobody")
    assert (refused.returncode, "knows nobody called 'nobody'" in refused.stderr) == (2, True)
