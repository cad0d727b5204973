"""What workers have to tell -> the program that waits for them, by an actor that needs nothing but this file."""

import time
from typing import Any

SECONDS_BETWEEN_REPORTS = 1.0


class Board:
    """The last thing that workers had to tell, and why they gave up. An actor: it lives on the cluster."""

    def __init__(self) -> None:
        self._last: tuple[str, int, int] | None = None
        self._reason: bytes | None = None

    def write(self, last: tuple[str, int, int]) -> None:
        """Take the place of what was told before."""
        self._last = last

    def read(self) -> tuple[str, int, int] | None:
        """Return what was told last, None where nothing was."""
        return self._last

    def give_up(self, reason: bytes) -> None:
        """Keep why trying again is no use, pickled; the first reason counts."""
        self._reason = self._reason or reason

    def reason(self) -> bytes | None:
        """Return why trying again is no use, None where it is."""
        return self._reason


class Teller:
    """Writes on the board now and then: what goes on, how much is done and how much there is to do."""

    def __init__(self, board: Any) -> None:
        self.board, self._last = board, 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        if time.monotonic() - self._last >= SECONDS_BETWEEN_REPORTS:
            self._last = time.monotonic()
            self.board.write.remote((what, done, total))
