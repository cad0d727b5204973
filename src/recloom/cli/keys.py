"""`recloom keys`: who may use a service."""

import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from recloom.cli.console import console, messages
from recloom.config import suggestion
from recloom.errors import ConfigError, MissingExtraError, UnknownIdError

if TYPE_CHECKING:
    from recloom.serving.store import Store

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
    store, roles = _open(database)
    if role not in roles:
        raise ConfigError(f"there is no role {role!r}; {suggestion(role, roles)}")
    key = store.add_key(name, role)
    store.close()
    if key is None:
        raise ConfigError(f"there is a key {name!r} already; remove it first, or choose another name")
    console.print(key)
    messages.print(f"Send it as `Authorization: Bearer KEY`. It is not shown again; role {role}.")


@app.command("list")
def list_keys(database: _Database) -> None:
    """List the keys, without themselves."""
    store, _ = _open(database)
    table = Table("name", "role", "made")
    for name, role, created in store.list_keys():
        table.add_row(name, role, time.strftime("%Y-%m-%d %H:%M", time.gmtime(created)))
    store.close()
    console.print(table)


@app.command("remove")
def remove(name: Annotated[str, typer.Argument(help="Which key.")], database: _Database) -> None:
    """Make a key worthless, on all instances at once."""
    store, _ = _open(database)
    found = store.remove_key(name)
    store.close()
    if not found:
        raise UnknownIdError(f"there is no key {name!r}; recloom keys list shows which there are")
    messages.print(f"Removed {name}.")


def _open(database: str) -> "tuple[Store, tuple[str, ...]]":
    try:
        from recloom.serving.access import ROLES
        from recloom.serving.database import Database
        from recloom.serving.store import Store
    except ImportError as error:
        raise MissingExtraError("serve", "recloom keys") from error
    return Store(Database(database)), ROLES
