"""Pages in Markdown -> their blocks of code, and the running of these."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
QUICK = ("--set", "training.epochs=2")
"""Added to every `recloom fit` of a page that says nothing of epochs: pages are to be run, not models to be good."""
LANGUAGES = ("sh", "console", "python", "json", "toml", "http", "csv", "text")


@dataclass(frozen=True)
class Block:
    """A block of code of a page."""

    page: str
    line: int
    language: str
    title: str
    text: str
    reason: str
    """Why it is not run, as the comment above it says; "" where it is."""

    def __str__(self) -> str:
        return f"{self.page}, line {self.line}: {self.text.splitlines()[0]}"

    @property
    def commands(self) -> list[str]:
        """The commands of a block for a shell; in `console`, those after a dollar sign, the rest being their output."""
        lines = self.text.replace("\\\n", " ").splitlines()
        if self.language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return [line.strip() for line in lines if line.strip() and not line.startswith("#")]

    @property
    def output(self) -> list[str]:
        """What a page shows as output."""
        lines = self.text.splitlines()
        if self.language == "console":
            lines = [line for line in lines if not line.startswith("$ ") and line.strip(" .…")]
        return lines


def blocks_of(path: Path) -> list[Block]:
    """Return the fenced blocks of a page, and those that are indented by four spaces, whose language is then "sh"."""
    return list(_blocks(path.relative_to(ROOT).as_posix(), path.read_text("utf-8").splitlines()))


def _blocks(page: str, lines: list[str]) -> Iterator[Block]:
    place, reason = 0, ""
    while place < len(lines):
        line, begin = lines[place], place
        if comment := re.fullmatch(r"<!-- not run: (.+) -->", line):
            reason = comment[1]
        elif fence := re.fullmatch(r'( *)```(\w*)(?: title="(.+)")?', line):
            place = lines.index(f"{fence[1]}```", place + 1)
            text = "\n".join(inner.removeprefix(fence[1]) for inner in lines[begin + 1 : place])
            yield Block(page, begin + 2, fence[2], fence[3] or "", text, reason)
            reason = ""
        elif line.startswith("    ") and begin and not lines[begin - 1] and not _is_in_list(lines[:begin]):
            while place + 1 < len(lines) and lines[place + 1].startswith("    "):
                place += 1
            yield Block(page, begin + 1, "sh", "", "\n".join(one[4:] for one in lines[begin : place + 1]), reason)
            reason = ""
        elif line:
            reason = ""
        place += 1


def _is_in_list(before: list[str]) -> bool:
    opening = next((line for line in reversed(before) if line and not line.startswith("  ")), "")
    return bool(re.match(r"[-*] |\d+\. ", opening))


class Reader:
    """Somebody who goes through a page and types in what it says, in a folder that holds what it speaks of."""

    def __init__(self, run: Callable, folder: Path, capsys: Any) -> None:
        self.run, self.folder, self.capsys = run, folder, capsys
        self.printed = ""
        self.service: Any = None
        self.open = ExitStack()

    def read(self, blocks: list[Block]) -> None:
        for block in blocks:
            if block.title:  # a file that the reader made
                (self.folder / block.title).write_text(block.text, encoding="utf-8")
        with self.open:
            for block in blocks:
                assert block.language in LANGUAGES, f"{block}: the language {block.language!r} is not known"
                if not block.reason:
                    getattr(self, f"_{block.language}")(block)

    def _sh(self, block: Block) -> None:
        for command in block.commands:
            self._type(command, block)

    def _console(self, block: Block) -> None:
        before = len(self.printed)
        self._sh(block)
        self._compare(block, self.printed[before:])

    def _text(self, block: Block) -> None:
        self._compare(block, self.printed)

    def _compare(self, block: Block, printed: str) -> None:
        """Look for every line that a page shows, or part of it, whatever numbers and lengths of drawn lines."""
        lines = [_masked(line) for line in printed.splitlines()]
        for line in block.output:
            is_there = any(_masked(line) in one for one in lines)
            assert is_there, f"{block}\nshows {line!r}, and it printed\n{printed}"

    def _python(self, block: Block) -> None:
        exec(compile(block.text, str(block), "exec"), {"__name__": "page"})
        self.printed += self.capsys.readouterr().out

    def _json(self, block: Block) -> None:
        rules = json.loads(block.text)
        if self.service is not None:  # the rules of a request
            self._ask("POST", "/v1/recommendations", json.dumps({"user_id": "1", "filters": rules}))

    def _toml(self, block: Block) -> None:
        from recloom.config import read_run_file
        from recloom.run_config import RunConfig
        from recloom.serving import read_settings

        path = self.folder / (block.title or "page.toml")
        path.write_text(block.text, encoding="utf-8")
        tables = read_run_file(path)
        if "service" in tables or "rules" in tables:
            read_settings(path)
        else:
            RunConfig.resolve("weave", self._dataset(), tables)

    def _dataset(self) -> Any:
        from recloom import Dataset

        return Dataset.open(self.folder / "dataset")

    def _csv(self, block: Block) -> None:
        widths = {len(line.split(",")) for line in block.text.splitlines()}
        assert len(widths) == 1, f"{block}: its rows have different lengths"

    def _http(self, block: Block) -> None:
        for request in re.split(r"\n(?=[A-Z]+ /)", block.text):
            method, path, body = re.fullmatch(r"([A-Z]+) (\S+)\s*(.*)", request, re.DOTALL).groups()
            self._ask(method, path, body)

    def _type(self, command: str, block: Block) -> None:
        words = shlex.split(command, comments=True)
        match words[0]:
            case "recloom" if words[1] == "serve":
                self._serve(words[2:])
            case "recloom":
                quick = QUICK if words[1] == "fit" and "epochs" not in command else ()
                code, out, err = self.run(*words[1:], *quick)
                self.printed += out + err
                assert code == 0, f"{block}\n{command}\n{err}"
            case "python":
                done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, check=False)
                self.printed += done.stdout
                assert done.returncode == 0, f"{block}\n{command}\n{done.stderr}"
            case "curl":
                url, body = next(word for word in words if "localhost" in word), words[words.index("-d") + 1]
                self._ask(words[words.index("-X") + 1], url.split("8000", 1)[1], body)
            case "pip":
                extras = re.findall(r"\[(.+)\]", command)
                known = (ROOT / "pyproject.toml").read_text()
                assert all(re.search(rf"^{extra} = ", known, re.MULTILINE) for extra in extras), command
            case "make":
                assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command
            case _:
                raise AssertionError(f"{block}: there is no way to try {command!r}; say above it why it is not run")

    def _serve(self, words: list[str]) -> None:
        """Start the service that a command would start, but for the listening at a port."""
        from starlette.testclient import TestClient

        from recloom.serving import create_app, read_settings

        options = dict(zip(words[1::2], words[2::2], strict=True))
        config, settings = options.pop("--config", None), options.pop("--set", None)
        options.pop("--port", None)
        assert not options, f"options that are not tried: {options}"
        settings = read_settings(Path(config) if config else None, [settings] if settings else None)
        self.open.close()
        app = create_app(Path(words[0]), f"{words[0]}.live.db", settings)
        self.service = self.open.enter_context(TestClient(app, base_url="http://localhost"))

    def _ask(self, method: str, path: str, body: str) -> None:
        assert self.service is not None, f"{method} {path} is asked of a service that no page has started"
        headers = {"content-type": "application/json"}
        answer = self.service.request(method, path, content=body or None, headers=headers)
        assert answer.status_code < 300, (method, path, answer.text)
        self.printed += answer.text + "\n"
        if method == "POST" and path == "/v1/models":
            from tests.serving.helpers import wait_until

            name = json.loads(body)["name"]
            wait_until(lambda: name in [one["name"] for one in self.service.get(path).json()["models"]], 30)


def _masked(line: str) -> str:
    return re.sub(r"[ ─]+", " ", re.sub(r"[\d][\d,.]*", "0", line)).strip()
