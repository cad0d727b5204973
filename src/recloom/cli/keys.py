"""`recloom keys`: who may use a service."""

import time
from typing import Annotated

import typer
from rich.table import Table

from recloom.cli.console import console, messages
from recloom.cli.live_store import opened_store
from recloom.errors import ConfigError, UnknownIdError

_FEATURE = "recloom keys"
app = typer.Typer(help="Make, list and remove the keys of a service.", no_args_is_help=True)
_Database = Annotated[
    str, typer.Option(envvar="RECLOOM_DATABASE", help="The service's database, as for recloom serve.")
]


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="What to call the key.")],
    database: _Database,
    role: Annotated[str, typer.Option(help="ingest, recommend or admin.")] = "recommend",
) -> None:
    """Make a key and print it, once: only its hash is kept."""
    with opened_store(database, _FEATURE) as store:
        key = store.add_key(name, role)
    if key is None:
        raise ConfigError(f"there is a key {name!r} already; remove it first, or choose another name")
    console.print(key)
    messages.print(f"Send it as `Authorization: Bearer KEY`. It is not shown again; role {role}.")


@app.command("list")
def list_keys(database: _Database) -> None:
    """List the keys, without themselves."""
    table = Table("name", "role", "made")
    with opened_store(database, _FEATURE) as store:
        for name, role, created in store.list_keys():
            table.add_row(name, role, time.strftime("%Y-%m-%d %H:%M", time.gmtime(created)))
    console.print(table)


@app.command("remove")
def remove(name: Annotated[str, typer.Argument(help="Which key.")], database: _Database) -> None:
    """Make a key worthless, on all instances at once."""
    with opened_store(database, _FEATURE) as store:
        found = store.remove_key(name)
    if not found:
        raise UnknownIdError(f"there is no key {name!r}; recloom keys list shows which there are")
    messages.print(f"Removed {name}.")
