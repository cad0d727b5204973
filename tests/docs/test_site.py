"""The site builds without a warning, asks nobody else for anything, and holds every command."""

import re
from importlib.util import find_spec

import pytest

from tests.docs.blocks import ROOT

pytestmark = pytest.mark.skipif(
    not find_spec("mkdocs") or not find_spec("mkdocstrings") or not find_spec("material"),
    reason="the extra docs is not installed",
)


@pytest.mark.filterwarnings("ignore")  # of mkdocs and its plugins; its own are errors under --strict
def test_the_site_builds_and_is_whole(tmp_path):
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    from recloom.cli import app

    build(load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(tmp_path / "site")))
    commands = (tmp_path / "site/reference/commands.html").read_text()
    for command in app.registered_commands:
        assert f"recloom {command.name}" in commands
    assert "Usage: recloom fit [OPTIONS]" in commands
    python = (tmp_path / "site/reference/api.html").read_text()
    assert "Recommend what comes next for a user of the dataset" in python
    assert (tmp_path / "site/examples/shop/page.webp").exists()
    for page in (tmp_path / "site").rglob("*.html"):
        asked = re.findall(r'(?:src|<link[^>]+href)="(https?:[^"]+)"', page.read_text())
        assert not asked, f"{page.name} asks other hosts: {asked}"
