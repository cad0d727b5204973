import os
import signal
import subprocess
import sys

import pytest

from recloom.files import recover, replacing


def test_an_error_leaves_what_was_there(tmp_path):
    target = tmp_path / "kept"
    target.write_text("before")

    def write_half():
        with replacing(target) as beside:
            beside.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="full"):
        write_half()
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert target.read_text() == "before"


def test_a_folder_takes_the_place_of_a_folder(tmp_path):
    target = tmp_path / "model"
    for content in ("old", "new"):
        with replacing(target) as beside:
            beside.mkdir()
            (beside / content).touch()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_kill_in_the_middle_leaves_what_was_there_and_the_next_write_cleans_up(tmp_path, kind):
    target = tmp_path / "kept"
    make = "beside.mkdir(); (beside / 'x').write_text('half')" if kind == "folder" else "beside.write_text('half')"
    if kind == "folder":
        target.mkdir()
        (target / "x").write_text("before")
    else:
        target.write_text("before")
    code = (
        f"import os, signal, pathlib; from recloom.files import replacing\n"
        f"with replacing(pathlib.Path({str(target)!r})) as beside:\n"
        f"    {make}\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert (target / "x" if kind == "folder" else target).read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 2
    with replacing(target) as beside:
        beside.mkdir() if kind == "folder" else beside.write_text("after")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_kill_between_the_two_renames_is_mended(tmp_path):
    (tmp_path / ".model.previous").mkdir()
    recover(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_another_running_writer_is_left_alone(tmp_path):
    theirs = tmp_path / f".kept.{os.getppid()}.partial"
    theirs.write_text("at work")
    with replacing(tmp_path / "kept") as beside:
        beside.write_text("mine")
    assert theirs.read_text() == "at work"
