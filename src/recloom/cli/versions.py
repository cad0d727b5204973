"""`recloom versions`: what a model was before, and the way back."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from recloom.cli.console import console
from recloom.lifecycle.versions import list_versions, remove_old, roll_back

app = typer.Typer(help="The versions of a model that was updated.", no_args_is_help=True)
_Model = Annotated[Path, typer.Argument(help="Folder of a model that was updated.")]


@app.command("list")
def list_all(model: _Model) -> None:
    """List the versions of a model, and what each came from."""
    table = Table()
    for column in ("", "version", "made (UTC)", "from", "new interactions", "NDCG@10 of its parent on them", "size"):
        table.add_column(column, justify="right" if column in ("new interactions", "size") else "left")
    for version in list_versions(model):
        lineage = version.lineage
        before = lineage.get("ndcg_at_10_before")
        table.add_row(
            "*" if version.is_current else "",
            version.name,
            f"{datetime.fromtimestamp(version.created, UTC):%Y-%m-%d %H:%M}",
            lineage.get("parent", "fitted"),
            f"{lineage['interactions']:,}" if "interactions" in lineage else "",
            "" if before is None else f"{before:.4f}",
            f"{version.size_bytes / 1e6:,.1f} MB",
        )
    console.print(table)
    console.print("*: the one that is served, evaluated and updated.")


@app.command("rollback")
def rollback(
    model: _Model, to: Annotated[str | None, typer.Option(help="Version to go to. Unset: the parent.")] = None
) -> None:
    """Make an earlier version current; services that run follow."""
    console.print(f"{model} is version {roll_back(model, to)} again.", soft_wrap=True)


@app.command("prune")
def prune(model: _Model, keep: Annotated[int, typer.Option(help="Newest versions to keep.")] = 5) -> None:
    """Remove old versions; the current one always stays."""
    gone = remove_old(model, keep)
    console.print(f"Removed {', '.join(gone)}." if gone else "There is nothing to remove.", soft_wrap=True)
