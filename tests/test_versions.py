"""A model's versions: the old one is never touched, and whatever happens one that is whole counts."""

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from recloom import Recommender
from recloom.errors import ConfigError, RecloomError, UnknownIdError
from recloom.files import file_digest
from recloom.lifecycle.versions import add_version, changing, has_versions, keep, list_versions, remove_old, roll_back
from tests.test_updating import HEADER, LATER, OLD, OLD_ITEMS, SETTINGS

HALF = len(LATER) // 2


def digests(folder: Path) -> dict[str, str]:
    return {path.name: file_digest(path) for path in sorted(folder.iterdir())}


@pytest.fixture
def logs(tmp_path):
    paths = []
    for number, lines in enumerate((LATER[:HALF], LATER[HALF:])):
        paths.append(tmp_path / f"later{number}.csv")
        paths[-1].write_text("\n".join([HEADER, *lines]) + "\n")
    return paths


@pytest.fixture
def model(dataset_of, tmp_path):
    folder = tmp_path / "model"
    Recommender.fit(dataset_of(OLD, OLD_ITEMS, HEADER), settings=SETTINGS).save(folder)
    return folder


def update(folder, log):
    with changing(folder):
        return add_version(Recommender.load(folder).update(log), folder)


def test_versions_follow_each_other_and_the_old_one_stays_as_it_is(model, logs):
    before = digests(model)
    assert not has_versions(model)
    assert update(model, logs[0]) == "v0002"
    assert digests(model / "v0001") == before
    second = digests(model / "v0002")
    assert update(model, logs[1]) == "v0003"
    assert digests(model / "v0002") == second
    versions = list_versions(model)
    assert [(v.name, v.is_current, v.lineage.get("parent")) for v in versions] == [
        ("v0001", False, None),
        ("v0002", False, "v0001"),
        ("v0003", True, "v0002"),
    ]
    assert Recommender.load(model).dataset.num_interactions == len(OLD) + len(LATER)


def test_the_way_back_and_forth(model, logs):
    with pytest.raises(ConfigError, match="no versions yet"):
        roll_back(model)
    update(model, logs[0])
    assert roll_back(model) == "v0001"
    assert Recommender.load(model).dataset.num_interactions == len(OLD)
    with pytest.raises(ConfigError, match="came from no other version"):
        roll_back(model)
    assert roll_back(model, "v0002") == "v0002"
    with pytest.raises(UnknownIdError, match="no version 'v0007'"):
        roll_back(model, "v0007")
    # After a way back the next one gets a name of its own and comes from the one that counts.
    roll_back(model)
    assert update(model, logs[1]) == "v0003"
    assert list_versions(model)[-1].lineage["parent"] == "v0001"


def test_a_new_fit_becomes_the_next_version(model, logs, dataset_of):
    update(model, logs[0])
    fresh = Recommender.fit(dataset_of(OLD, OLD_ITEMS, HEADER), settings=SETTINGS)
    assert keep(fresh, model) == "v0003"
    assert keep(fresh, model.with_name("another")) is None
    assert list_versions(model)[-1].is_current


def test_old_versions_are_removed_and_the_current_one_never(model, logs):
    update(model, logs[0])
    update(model, logs[1])
    roll_back(model, "v0001")
    assert remove_old(model, 1) == ["v0002"]
    assert [v.name for v in list_versions(model)] == ["v0001", "v0003"]
    assert Recommender.load(model).dataset.num_interactions == len(OLD)
    with pytest.raises(ConfigError, match="keep at least 1"):
        remove_old(model, 0)


def test_two_at_once_are_refused(model, logs):
    with changing(model), pytest.raises(ConfigError, match="being updated by another process"):
        update(model, logs[0])
    assert update(model, logs[0]) == "v0002"


KILLED = """
    import os, signal, sys
    from pathlib import Path
    import recloom.files, recloom.fitting, recloom.recommender, recloom.lifecycle.versions
    from recloom import Recommender

    moment, folder, log = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    left = int(sys.argv[4])

    def dies(function):
        def wrapped(*arguments, **named):
            global left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)
        return wrapped

    if moment == "train":
        recloom.fitting.train = dies(recloom.fitting.train)
    elif moment == "write":
        recloom.recommender.save_file = dies(recloom.recommender.save_file)
    elif moment == "checksums":
        recloom.recommender.write_checksums = dies(recloom.recommender.write_checksums)
    elif moment == "point":
        recloom.lifecycle.versions._point_to = dies(recloom.lifecycle.versions._point_to)
    elif moment == "rename":
        Path.rename = dies(Path.rename)
    with recloom.lifecycle.versions.changing(folder):
        recloom.lifecycle.versions.add_version(Recommender.load(folder).update(log), folder)
"""


@pytest.mark.parametrize(
    ("has_some", "moment", "times"),
    [
        (False, "train", 1),
        (False, "write", 3),
        (False, "checksums", 1),
        (False, "point", 1),
        (False, "rename", 1),
        (False, "rename", 2),
        (True, "write", 3),
        (True, "point", 1),
    ],
)
def test_a_kill_at_any_moment_leaves_the_version_before_it(model, logs, has_some, moment, times):
    if has_some:
        update(model, logs[0])
    interactions = Recommender.load(model).dataset.num_interactions
    script = textwrap.dedent(KILLED)
    command = [sys.executable, "-c", script, moment, str(model), str(logs[1]), str(times)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert Recommender.load(model).dataset.num_interactions == interactions
    update(model, logs[1])
    assert Recommender.load(model).dataset.num_interactions == interactions + len(LATER) - HALF
    leftovers = [path.name for path in (*model.iterdir(), *model.parent.iterdir()) if path.name.endswith(".partial")]
    assert leftovers == []


@pytest.mark.parametrize("room", [2_000, 200_000])
def test_a_full_disk_leaves_the_version_before_it(model, logs, room):
    before = digests(model)
    script = textwrap.dedent(
        f"""
        import resource, signal, sys
        from recloom.cli import main
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {resource.RLIM_INFINITY}))
        sys.argv = ["recloom", "update", {str(model)!r}, {str(logs[0])!r}]
        main()
        """
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert digests(model) == before
    assert update(model, logs[0]) == "v0002"


def test_the_command_says_what_it_learned_and_how_to_go_back(model, logs):
    def run(*words):
        command = [str(Path(sys.executable).with_name("recloom")), *map(str, words)]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "COLUMNS": "120"}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    done = run("update", model, logs[0], "--set", "update.epochs=1")
    assert done.returncode == 0, done.stderr
    assert "version v0002, current from now on" in done.stdout
    assert f"{HALF:,}" in done.stdout
    again = run("update", model, logs[0])
    assert "Nothing in it is new" in again.stdout
    told = json.loads(run("update", model, logs[1], "--json").stdout)
    assert (told["version"], told["parent"], told["interactions"]) == ("v0003", "v0002", len(LATER) - HALF)
    listed = run("versions", "list", model).stdout
    assert "v0003" in listed
    assert "* " in listed
    assert run("versions", "rollback", model, "--to", "v0001").returncode == 0
    assert run("recommend", model, "--user", "u01").returncode == 0
    assert run("versions", "prune", model, "--keep", "1").stdout.startswith("Removed v0002")
    for words, sentence in (
        (("update", model), "there is nothing to learn from"),
        (("update", model, logs[0], "--set", "training.epochs=3"), "options of [update] only"),
        (("update", model, logs[0], "--set", "update.replay=-1"), "it cannot be negative"),
        (("update", model, logs[0], "--retire"), "needs the catalogue"),
        (("update", model.parent / "nothing", logs[0]), "there is no model at"),
        (("update", model, model.parent / "no.csv"), "no.csv"),
        (("versions", "list", model.parent / "nothing"), "holds no versions yet"),
    ):
        refused = run(*words)
        assert refused.returncode == 2, (words, refused.stderr)
        assert sentence in refused.stderr, refused.stderr
        assert "Traceback" not in refused.stderr


def test_what_a_service_collected_is_learned(model):
    pytest.importorskip("sqlalchemy")
    from recloom.serving.database import Database
    from recloom.serving.store import Event, Store

    live = model.with_name("live.db")
    store = Store(Database(str(live)))
    events = [
        Event(f"e{n}", f"u{n:02}", "fresh" if n % 2 else "i3", 1_700_000_000 + n, "view", context={"device": "web"})
        for n in range(20)
    ]
    store.add(events).result()
    store.add([Event("shown", "u01", "i5", 1_700_000_100, "impression")]).result()
    store.change_item("fresh", {"title": "film number1 kind0", "price": 3})
    store.change_item("i4", None)
    store.close()
    (model.parent / "serve.toml").write_text("[behaviors]\nimpression = 0\nview = 1\n")
    recloom = str(Path(sys.executable).with_name("recloom"))
    settings = str(model.parent / "serve.toml")
    command = [recloom, "update", str(model), "--database", str(live), "--config", settings, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["interactions"] == 20
    after = Recommender.load(model)
    assert after.titles[after.dataset.items.index_of("fresh")] == "film number1 kind0"
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Nothing in it is new" in again.stdout


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "thing").mkdir()
    with pytest.raises(RecloomError, match="not a model folder"):
        Recommender.load(tmp_path / "thing")
