"""`recloom join`: several datasets to one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from recloom.cli.console import console
from recloom.dataset import Dataset
from recloom.dataset import join as join_datasets
from recloom.errors import ConfigError


def join(
    datasets: Annotated[list[Path], typer.Argument(help="Folders that recloom prepare wrote, two or more.")],
    out: Annotated[Path, typer.Option(help="Folder to write the joined dataset to.")],
    same_people: Annotated[
        bool, typer.Option("--same-people", help="A user id is the same person in all of them.")
    ] = False,
) -> None:
    """Put several datasets into one; item ids become FOLDER:ID, and user ids too unless people are the same."""
    if len(datasets) < 2:
        raise ConfigError("joining takes two datasets or more; name further folders")
    named = named_datasets(datasets)
    joined = join_datasets(named, same_people=same_people, out=out)
    console.print(
        f"{joined.num_interactions:,} interactions of {len(joined.users):,} users with {len(joined.items):,} items of"
        f" {', '.join(named)}.",
        soft_wrap=True,
    )
    if same_people:
        in_several = sum(len(dataset.users) for dataset in named.values()) - len(joined.users)
        console.print(f"{in_several:,} users were met again in a further dataset.", soft_wrap=True)
    console.print(f"Wrote {joined.path}. Next: recloom fit {out} --out MODEL", soft_wrap=True)


def named_datasets(folders: Sequence[Path]) -> dict[str, Dataset]:
    """Open datasets by the names of their folders.

    Raises:
        ConfigError: Two folders have the same name.
    """
    named: dict[str, Dataset] = {}
    for folder in folders:
        if (name := folder.resolve().name) in named:
            raise ConfigError(f"two of the folders are called {name!r}, which tells their items apart; rename one")
        named[name] = Dataset.open(folder)
    return named
