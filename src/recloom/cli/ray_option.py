"""`--ray [ADDRESS]`: the option of every command that can run on a Ray cluster, the address being optional."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from recloom.cli.console import messages
from recloom.cluster import LOCAL, NEAREST, connected

OPTION = "--ray"
RayAddress = Annotated[
    str | None,
    typer.Option(
        OPTION,
        metavar="[ADDRESS]",
        help="Run on a Ray cluster (extra ray): HOST:PORT of its head node, local for a new one on this machine, or"
        " nothing: the one RAY_ADDRESS names, one that runs here, or a new one.",
    ),
]
_ADDRESS = re.compile(rf"{NEAREST}|{LOCAL}|ray://\S+|(\[[\da-fA-F:]+\]|[\w.-]+):\d+")


class RayCommand(TyperCommand):
    """A command with `--ray [ADDRESS]`: what follows the option is an address only where it looks like one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Spell out the address that was left out."""
        return super().parse_args(ctx, with_address(args))


def with_address(words: Sequence[str]) -> list[str]:
    """Return the words of a command with the address of `--ray` filled in where it was left out.

    >>> with_address(["parts/a.parquet", "--ray", "--out", "dataset"])
    ['parts/a.parquet', '--ray', 'auto', '--out', 'dataset']
    >>> with_address(["--ray", "10.0.0.1:6379", "parts"])
    ['--ray', '10.0.0.1:6379', 'parts']
    """
    spelled: list[str] = []
    for word, following in zip(words, [*words[1:], ""], strict=True):
        spelled.append(word)
        if word == OPTION and not _ADDRESS.fullmatch(following):
            spelled.append(NEAREST)
    return spelled


@contextmanager
def on_ray(address: str | None) -> Iterator[bool]:
    """Be part of the cluster at an address while the block runs, if there is one; yield whether there is."""
    if address is None:
        yield False
        return
    with connected(address) as joined:
        messages.print(str(joined), soft_wrap=True)
        yield True
