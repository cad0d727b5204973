"""Data that was prepared with a key names nobody, and whoever has the key is served as ever."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from recloom import Dataset, Recommender
from recloom.errors import ConfigError
from recloom.events import Pseudonyms
from tests.test_updating import HEADER, LATER, OLD, OLD_ITEMS, SETTINGS

SOMEBODY = "jane.doe@example.org"


@pytest.fixture
def files(tmp_path):
    """A log with one row of somebody's that cannot be read, the items, and what is known of the users."""
    named = [line.replace("u01,", f"{SOMEBODY},") for line in OLD]
    (tmp_path / "log.csv").write_text("\n".join([HEADER, *named, f"{SOMEBODY},i1,no time,web"]) + "\n")
    (tmp_path / "items.csv").write_text("\n".join(["item_id,title", *OLD_ITEMS]) + "\n")
    (tmp_path / "users.csv").write_text(f"user_id,city\n{SOMEBODY},Ulm\n")
    (tmp_path / "later.csv").write_text("\n".join([HEADER, f"{SOMEBODY},i7,2000000,web", *LATER[:4]]) + "\n")
    return tmp_path


@pytest.fixture
def pseudonyms(files):
    return Pseudonyms.from_file(files / "key", create=True)


def prepared(files, pseudonyms=None, **where):
    return Dataset.from_files(
        files / "log.csv", files / "items.csv", files / "users.csv", pseudonyms=pseudonyms, **where
    )


def traces(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and SOMEBODY.encode() in path.read_bytes()]


def test_no_file_of_a_dataset_names_anybody(files, pseudonyms):
    prepared(files, pseudonyms, out=files / "out" / "dataset")
    assert traces(files / "out") == []
    assert (files / "key").stat().st_mode & 0o077 == 0
    prepared(files, out=files / "plain")
    assert len(traces(files / "plain")) == 2  # the dataset and the rejects


def test_everything_else_is_as_it_was(files, pseudonyms):
    plain, hidden = prepared(files), prepared(files, pseudonyms)
    for user in plain.users.ids:
        one, other = plain.history_of(user), hidden.history_of(pseudonyms.of(user))
        assert plain.item_index[one].tolist() == hidden.item_index[other].tolist()
        assert plain.timestamp[one].tolist() == hidden.timestamp[other].tolist()
    row = hidden.users.index_of(pseudonyms.of(SOMEBODY)) - 1
    assert hidden.user_table["city"][row] == "Ulm"


def test_the_key_decides_and_cannot_be_told_from_what_it_makes(files, pseudonyms, tmp_path):
    again = Pseudonyms.from_file(files / "key")
    assert again.of(SOMEBODY) == pseudonyms.of(SOMEBODY)
    other = Pseudonyms.from_file(tmp_path / "another", create=True)
    assert other.of(SOMEBODY) != pseudonyms.of(SOMEBODY)
    assert other.key_id != pseudonyms.key_id
    assert pseudonyms.key_id not in (files / "key").read_text()


@pytest.mark.parametrize(("content", "sentence"), [("not hexadecimal", "is no key"), ("abcd", "it holds 2 bytes")])
def test_what_is_no_key_is_named(tmp_path, content, sentence):
    (tmp_path / "key").write_text(content)
    with pytest.raises(ConfigError, match=sentence):
        Pseudonyms.from_file(tmp_path / "key")
    with pytest.raises(ConfigError, match="there is no key at"):
        Pseudonyms.from_file(tmp_path / "nowhere")


def test_an_update_needs_the_same_key(files, pseudonyms, tmp_path):
    fitted = Recommender.fit(prepared(files, pseudonyms), "popular", settings=SETTINGS)
    with pytest.raises(ConfigError, match="and no key was given"):
        fitted.update(files / "later.csv")
    other = Pseudonyms.from_file(tmp_path / "another", create=True)
    with pytest.raises(ConfigError, match=f"and the key {other.key_id} was given"):
        fitted.update(files / "later.csv", pseudonyms=other)
    after = fitted.update(files / "later.csv", pseudonyms=pseudonyms)
    history = after.dataset.history_of(pseudonyms.of(SOMEBODY))
    assert after.dataset.items.id_of(int(after.dataset.item_index[history][-1])) == "i7"
    after.save(tmp_path / "model")
    assert Recommender.load(tmp_path / "model").dataset.pseudonym_key_id == pseudonyms.key_id
    assert traces(tmp_path / "model") == []
    plain = Recommender.fit(prepared(files), "popular", settings=SETTINGS)
    with pytest.raises(ConfigError, match="are no pseudonyms"):
        plain.update(files / "later.csv", pseudonyms=pseudonyms)


def test_the_whole_way_on_the_command_line(files):
    def run(*words, **environment):
        command = [str(Path(sys.executable).with_name("recloom")), *map(str, words)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=os.environ | {"HF_HUB_OFFLINE": "1"} | environment
        )
        return done.returncode, done.stdout + done.stderr

    out, key = files / "out", files / "key"
    words = ("prepare", files / "log.csv", "--items", files / "items.csv", "--out", out / "dataset")
    code, said = run(*words, "--pseudonym-key", key)
    assert (code, f"keep {key} apart" in said) == (0, True), said
    assert run("fit", out / "dataset", "--out", out / "model", "--model", "popular")[0] == 0
    known = {"RECLOOM_PSEUDONYM_KEY": str(key)}
    assert run("recommend", out / "model", "--user", SOMEBODY)[0] == 2
    assert run("recommend", out / "model", "--user", SOMEBODY, **known)[0] == 0
    assert run("update", out / "model", files / "later.csv", **known)[0] == 0
    assert run("forget", out / "model", "--user", SOMEBODY, **known)[0] == 0
    assert run("recommend", out / "model", "--user", SOMEBODY, **known)[0] == 2
    assert traces(out) == []
