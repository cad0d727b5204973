"""What every command shares: where it prints, how it shows progress, how it reads options that are written short."""

import os
import re
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Annotated, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from recloom.errors import ConfigError
from recloom.events import Pseudonyms

# What is piped or kept in a file has no width of its own; cells cut off at 80 columns would be no use there.
_WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160
console = Console(highlight=False, width=_WIDTH)
"""Results: standard output."""
messages = Console(stderr=True, highlight=False)
"""Progress, warnings and errors: standard error."""

_SECONDS_BETWEEN_LINES = 10.0
_UNITS = {"s": 1, "m": 60, "h": 3600, "": 1}


class ShownProgress:
    """A bar on a terminal, now and then a plain line elsewhere. Called with what is going on, done and total."""

    def __init__(self) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._bar = Bar(*columns, console=messages, transient=True) if messages.is_terminal else None
        self._task = self._bar.add_task("", total=None) if self._bar else None
        self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` steps of `what` are done."""
        if self._bar and self._task is not None:
            self._bar.update(self._task, description=what, completed=done, total=total)
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            print(f"{what}: {done:,} of {total:,}", file=sys.stderr, flush=True)


PseudonymKey = Annotated[
    Path | None,
    typer.Option(envvar="RECLOOM_PSEUDONYM_KEY", help="File of the key that user ids are pseudonyms of, if they are."),
]


def read_pseudonyms(key: Path | None) -> Pseudonyms | None:
    """Read the key of pseudonyms, if there is one."""
    return None if key is None else Pseudonyms.from_file(key)


def parse_duration(text: str) -> float:
    """Read "90", "90s", "10m" or "1.5h" as seconds.

    Raises:
        ConfigError: It is none of these.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if not match:
        raise ConfigError(f"the duration {text!r} is not understood; write it as 90s, 10m or 1.5h")
    return float(match[1]) * _UNITS[match[2]]


def parse_pairs(option: str, pairs: list[str]) -> dict[str, str]:
    """Read `["a=b"]` as `{"a": "b"}`.

    Raises:
        ConfigError: One of them has no "=".
    """
    parsed = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise ConfigError(f"{option} {pair!r} is not of the form name=value")
        parsed[name.strip()] = value.strip()
    return parsed


def parse_cutoffs(text: str) -> list[int]:
    """Read "5,10,20" as numbers.

    Raises:
        ConfigError: One of them is no whole number.
    """
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ConfigError(f"--k {text!r} is not a list of whole numbers; write it as 5,10,20") from None
