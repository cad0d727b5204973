"""Pages of the site made when it is built: commands from their --help, the examples' own, README in Chinese.

mkdocs calls the functions whose names begin with `on_`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from recloom.cli import app

EXAMPLES = ("shop", "feed", "courses", "videos-zh")
WIDTH = 100


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    root = Path(config.config_file_path).parent
    files.append(File.generated(config, "reference/commands.md", content=command_reference()))
    files.append(File.generated(config, "zh.md", content=(root / "README.zh.md").read_text(encoding="utf-8")))
    for name in EXAMPLES:
        folder = root / "examples" / name
        story = (folder / "README.md").read_text(encoding="utf-8")
        script = (folder / "run.py").read_text(encoding="utf-8")
        content = f"{story}\n## The script\n\n```python\n{script}```\n"
        files.append(File.generated(config, f"examples/{name}/index.md", content=content))
        for picture in sorted(folder.glob("*.webp")):
            files.append(File.generated(config, f"examples/{name}/{picture.name}", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn `docs/serving.md`, as pages call each other, into links, and links of READMEs into those of the site."""
    up = "../" * page.file.src_uri.count("/")

    def link(found: re.Match[str]) -> str:
        name = found[1]
        is_here = files.get_file_from_path(name) is not None and name != page.file.src_uri
        return f"[`docs/{name}`]({up}{name})" if is_here else found[0]

    markdown = re.sub(r"\((?:\.\./)?examples/([\w-]+)/README\.md\)", rf"({up}examples/\1/index.md)", markdown)
    markdown = markdown.replace("(README.md)", f"({up}index.md)")
    return re.sub(r"(?<!\[)`docs/([\w/-]+\.md)`", link, markdown)


def command_reference() -> str:
    """Return one page with what --help says of every command."""
    top = "# Commands\n\nWhat `recloom COMMAND --help` says, for each command.\n"
    return "\n".join([top, *_sections(typer.main.get_command(app), "recloom")])


def _sections(command: Any, name: str, parent: Any = None) -> Iterator[str]:
    context = command.context_class(
        command, info_name=name, parent=parent, terminal_width=WIDTH, max_content_width=WIDTH
    )
    yield f"## {context.command_path}\n\n```text\n{command.get_help(context).rstrip()}\n```\n"
    for inner, one in getattr(command, "commands", {}).items():
        yield from _sections(one, inner, context)
